package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"georep/marker/hint"
	"georep/marker/xtime"
	"georep/slave"
)

// seesaw is a slave before which the master changes for as long as a crawl compares what was found with it.
type seesaw struct {
	slave.Tree
	about map[xtime.GFID]bool // what Find has to be asked about
	swing func()              // there, and with the next call back; nil: it is at rest
	away  bool
}

func (s *seesaw) back() {
	if s.away && s.swing != nil {
		s.swing()
		s.away = false
	}
}

func (s *seesaw) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	s.back()
	found, err := s.Tree.Find(ctx, gfids)
	for _, g := range gfids {
		if s.about[g] && s.swing != nil && !s.away {
			s.swing()
			s.away = true
		}
	}
	return found, err
}

func (s *seesaw) Survey(ctx context.Context, q []slave.Query) ([]slave.DirState, error) {
	s.back()
	return s.Tree.Survey(ctx, q)
}

func (s *seesaw) Apply(ctx context.Context, b *slave.Batch) ([]slave.Result, error) {
	s.back()
	return s.Tree.Apply(ctx, b)
}

// TestNothingIsTakenOutOfAnotherCopy: a crawl that is not told of a directory's old place makes a second copy of it on the slave. It
// must not take from the first, which keeps its stamp, what that has: it comes back, and is believed.
func TestNothingIsTakenOutOfAnotherCopy(t *testing.T) {
	for _, hints := range []bool{true, false} {
		for _, overSFTP := range []bool{false, true} {
			for _, top := range []string{"E", "P"} {
				if top == "E" && !hints {
					continue // E has a mark of its own: it is compared
				}
				for _, leaves := range []bool{true, false} {
					t.Run(fmt.Sprintf("hints %v, SFTP %v, %s moves, names may be left %v", hints, overSFTP, top, leaves), func(t *testing.T) {
						otherCopy(t, hints, overSFTP, top, leaves)
					})
				}
			}
		}
	}
}

// otherCopy has a directory E, or P in which E lies, exchanged with another one, where a crawl is told of one of its places. leaves
// tells whether names of files may stay where these came from.
func otherCopy(t *testing.T, hints, overSFTP bool, top string, leaves bool) {
	w := inMemory(t, hints)
	w.maxDelete = 99
	s := &seesaw{about: map[xtime.GFID]bool{}}
	w.wrap = func(t slave.Tree) slave.Tree { s.Tree = t; return s }
	if overSFTP {
		w.connectSFTP()
	} else {
		w.connect()
	}
	dir := map[string]string{"E": "E", "P": "P/E"}[top]
	for _, d := range []string{"a/" + dir, "b/" + dir, "c"} {
		w.write(d+"/f", d)
	}
	w.write("a/"+dir+"/sub/f", "x")
	w.write("a/"+dir+"/n0", "n0")
	w.ok(os.Link(w.at("a", dir, "n0"), w.at("c/other")))
	w.mark("")
	for range 2 {
		w.pass()
	}
	w.ok(os.Remove(w.at("c/other"))) // the slave knows where n0 is, by SFTP too
	w.mark("c/other")
	for range 2 {
		w.pass()
	}
	if !w.looksInStep() {
		t.Fatal("not in step at the beginning")
	}
	for _, d := range []string{"a/" + top, "a/" + dir} {
		g, err := w.root.OpenPath(d)
		w.ok(err)
		id, err := g.GFID("")
		w.ok(err)
		g.Close()
		s.about[id] = true
	}
	var untold []*hint.Hint
	mark := func(paths ...string) { untold = append(untold, w.hint(paths...)) }
	s.swing = func() { w.exchange("a/"+top, "b/"+top) }
	s.swing()
	mark("b/" + top)
	if !leaves {
		w.crawler.Free(1)
	}
	w.pass() // makes a second copy in b
	w.crawler.Free(1000)
	s.back()
	s.swing = nil
	// Now the second copy is parked, then the first, and that comes back.
	w.rename("b/"+top, "c/"+top)
	w.rename("a/"+top, "a/other")
	mark("b/" + top)
	w.pass()
	mark("a/"+top, "a/other")
	w.pass()
	mark("c/" + top)
	for _, h := range untold {
		if hints {
			w.hints.Hint(h)
		}
	}
	for tries := 0; !w.looksInStep(); tries++ {
		if tries == 5 {
			t.Fatal("never in step")
		}
		w.pass()
	}
	for _, name := range []string{"f", "n0", "sub/f"} {
		if _, err := os.Stat(w.there("c", dir, name)); err != nil {
			t.Errorf("in step without %v", err)
		}
	}
}

func (w *world) looksInStep() bool {
	w.t.Helper()
	look, err := w.crawler.Look(w.t.Context())
	w.ok(err)
	return look.InStep()
}

// swapped is a slave on which two directories change places before a path is surveyed, as another part of the crawl does that met
// them exchanged.
type swapped struct {
	slave.Tree
	path string
	swap func() error // once
}

func (s *swapped) Survey(ctx context.Context, q []slave.Query) ([]slave.DirState, error) {
	for i := range q {
		if swap := s.swap; swap != nil && q[i].Path == s.path {
			s.swap = nil
			if err := swap(); err != nil {
				return nil, err
			}
		}
	}
	return s.Tree.Survey(ctx, q)
}

// TestNothingIsParkedInAnotherDirectory: another directory has come on the slave to the place of one that is about to be compared.
// Nothing is taken out of it, which keeps its stamp.
func TestNothingIsParkedInAnotherDirectory(t *testing.T) {
	for _, hints := range []bool{true, false} {
		for _, overSFTP := range []bool{false, true} {
			t.Run(fmt.Sprintf("hints %v, SFTP %v", hints, overSFTP), func(t *testing.T) { parkedInAnother(t, hints, overSFTP) })
		}
	}
}

func parkedInAnother(t *testing.T, hints, overSFTP bool) {
	w := inMemory(t, hints)
	s := &swapped{path: "p"}
	w.wrap = func(t slave.Tree) slave.Tree { s.Tree = t; return s }
	if overSFTP {
		w.connectSFTP()
	} else {
		w.connect()
	}
	w.write("p/x", "x")
	w.write("b/deep/y", "y")
	w.mark("")
	for range 2 {
		w.pass()
	}
	state, err := s.Tree.Survey(t.Context(), []slave.Query{{Path: "p"}, {Path: "b"}})
	w.ok(err)
	s.swap = func() error {
		p, b := state[0].Record, state[1].Record
		results, err := s.Tree.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{
			{Kind: slave.OpPark, Entry: slave.Dir, Path: "p", Expect: p.GFID},
			{Kind: slave.OpPark, Entry: slave.Dir, Path: "b", Expect: b.GFID},
			{Kind: slave.OpUnpark, Entry: slave.Dir, Path: "p", Record: b},
			{Kind: slave.OpUnpark, Entry: slave.Dir, Path: "b", Record: p},
		}})
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	}
	w.write("p/new", "new")
	untold := w.hint("p/new")
	w.pass()
	if s.swap != nil {
		t.Fatal("p was not compared")
	}
	if _, err := os.Stat(w.there("p/deep/y")); err != nil {
		t.Errorf("taken out of the directory that has its place on the slave: %v", err)
	}
	later := w.hint("p", "b") // they were exchanged, and back
	if hints {
		w.hints.Hint(untold)
		w.hints.Hint(later)
	}
	for tries := 0; !w.looksInStep(); tries++ {
		if tries == 5 {
			t.Fatal("never in step")
		}
		w.pass()
	}
	for _, name := range []string{"p/x", "p/new", "b/deep/y"} {
		if _, err := os.Stat(w.there(name)); err != nil {
			t.Errorf("in step without %v", err)
		}
	}
}
