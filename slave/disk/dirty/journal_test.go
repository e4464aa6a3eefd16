package dirty_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"testing"

	"georep/marker/xtime"
	"georep/slave/disk/dirty"
)

var errDisk = errors.New("the disk")

// files are marks in memory, and what of them a power cut leaves.
type files struct {
	now, durable map[string]string
	fail         func() bool // nil: nothing fails
}

func newFiles() *files { return &files{now: map[string]string{}, durable: map[string]string{}} }

func (f *files) fails() bool { return f.fail != nil && f.fail() }

func (f *files) Make(name, text string) error {
	if f.fails() {
		return errDisk
	}
	if _, there := f.now[name]; there {
		return fs.ErrExist
	}
	f.now[name] = text
	return nil
}

func (f *files) Replace(name, text string) error {
	if f.fails() {
		return errDisk
	}
	f.now[name] = text
	return nil
}

func (f *files) Remove(name string) error {
	if f.fails() {
		return errDisk
	}
	delete(f.now, name)
	return nil
}

func (f *files) Read(name string) (string, bool) {
	text, there := f.now[name]
	return text, there
}

func (f *files) Sync() error {
	if f.fails() {
		return errDisk
	}
	f.durable = maps.Clone(f.now)
	return nil
}

func gfid(n int) xtime.GFID { return xtime.GFID{0xee, byte(n)} }

// on is what is kept of the n-th inode.
func (f *files) on(n int) (dirty.Mark, bool) {
	text, there := f.now[gfid(n).String()]
	return dirty.Parse(text), there
}

// sync is a sync of the tree, which takes the marks along.
func sync(j *dirty.Journal, f *files) {
	j.BeginSync()
	f.durable = maps.Clone(f.now)
	j.EndSync(func(xtime.GFID, error) {})
}

// TestAddJoins: what is added to a mark joins what it says, within a session and over sessions.
func TestAddJoins(t *testing.T) {
	f := newFiles()
	for _, session := range []string{"one", "two"} {
		j := dirty.New(f, session)
		for _, m := range []dirty.Mark{{Ino: 5}, {Here: 7}, {}, {Ino: 6}} {
			if err := j.Add(gfid(1), m); err != nil {
				t.Fatal(err)
			}
		}
	}
	if m, _ := f.on(1); m != (dirty.Mark{Ino: 6, Here: 7, Session: "one"}) {
		t.Errorf("on record is %+v", m)
	}
}

// TestLetGo: a mark is taken away by the first sync that began after it was let go, unless the inode became dirty again.
func TestLetGo(t *testing.T) {
	f := newFiles()
	j := dirty.New(f, "one")
	there := func(when string, want bool) {
		t.Helper()
		if _, there := f.on(1); there != want {
			t.Errorf("%s: there %v", when, there)
		}
	}
	add := func() {
		if err := j.Add(gfid(1), dirty.Mark{Ino: 5}); err != nil {
			t.Fatal(err)
		}
	}
	j.LetGo(gfid(1))
	sync(j, f)
	add()
	sync(j, f)
	there("not let go", true)
	j.BeginSync()
	j.LetGo(gfid(1))
	j.EndSync(func(xtime.GFID, error) {})
	there("let go during the sync", true)
	if !j.AwaitsSync(gfid(1)) {
		t.Error("it is let go, and not settled")
	}
	add()
	sync(j, f)
	there("dirty again", true)
	j.LetGo(gfid(1))
	j.BeginSync()
	add()
	j.EndSync(func(xtime.GFID, error) {})
	there("dirty again during the sync", true)
	j.LetGo(gfid(1))
	j.Forget() // which is no knowledge that counts
	sync(j, f)
	there("let go before the sync", false)
	add()
	there("dirty once more", true)
}

// TestEarlierSession: a mark of an earlier session is told of before it can be let go, and not for ever.
func TestEarlierSession(t *testing.T) {
	f := newFiles()
	if err := dirty.New(f, "one").Add(gfid(1), dirty.Mark{Here: 3}); err != nil {
		t.Fatal(err)
	}
	j := dirty.New(f, "two")
	j.LetGo(gfid(1))
	sync(j, f)
	if m, there := f.on(1); !there || m.Session != "one" {
		t.Fatalf("it was let go before it was told of: %+v", m)
	}
	for n := range dirty.MaxTold + 2 {
		if told := j.Tell(gfid(1)); told != (n < dirty.MaxTold) {
			t.Errorf("round %d: told %v", n, told)
		}
	}
	j.LetGo(gfid(1))
	sync(j, f)
	if _, there := f.on(1); there {
		t.Error("it was told of, and cannot be let go")
	}
}

// TestSettle: what was read is settled, unless the mark says more by now.
func TestSettle(t *testing.T) {
	f := newFiles()
	j := dirty.New(f, "one")
	if err := j.Add(gfid(1), dirty.Mark{Ino: 5}); err != nil {
		t.Fatal(err)
	}
	was, _ := j.Read(gfid(1).String())
	if err := j.Add(gfid(1), dirty.Mark{Here: 9}); err != nil {
		t.Fatal(err)
	}
	j.Settle(gfid(1), was)
	if j.AwaitsSync(gfid(1)) {
		t.Error("an older reading settles it")
	}
	was, _ = j.Read(gfid(1).String())
	j.Settle(gfid(1), was)
	if !j.AwaitsSync(gfid(1)) {
		t.Error("it is not settled")
	}
}

// TestMarksSurviveAnyCut plays random sessions with failing disks: whenever the power is cut, an inode whose names were changed since
// the last sync that found them right has a mark.
func TestMarksSurviveAnyCut(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		f := newFiles()
		f.fail = func() bool { return rnd.IntN(10) == 0 }
		must := map[int]bool{} // changed, and not known to be right in a tree that is durable
		for session := range 3 {
			j := dirty.New(f, fmt.Sprint("session", session))
			right := map[int]bool{} // let go since it was changed
			synced := map[int]bool{}
			for range 60 {
				n := rnd.IntN(4)
				switch rnd.IntN(6) {
				case 0, 1: // change a name: the mark comes first
					if j.Add(gfid(n), dirty.Mark{Ino: uint64(n + 1)}) != nil {
						break
					}
					delete(right, n)
					delete(synced, n)
					if j.Sync() == nil {
						must[n] = true
					}
				case 2:
					j.Tell(gfid(n))
					j.LetGo(gfid(n))
					right[n] = true
				case 3:
					j.BeginSync()
					synced = maps.Clone(right)
				case 4:
					if len(synced) == 0 {
						break
					}
					f.durable = maps.Clone(f.now)
					j.EndSync(func(xtime.GFID, error) {})
					for k := range synced {
						delete(must, k)
						delete(right, k)
					}
					synced = map[int]bool{}
				case 5:
					j.Forget()
				}
				for k := range must {
					if _, kept := f.durable[gfid(k).String()]; !kept {
						t.Fatalf("seed %d: a cut now, in session %d, takes the mark of inode %d", seed, session, k)
					}
				}
			}
			f.now = maps.Clone(f.durable) // the cut
		}
	}
}

// TestAddDuringASync: a mark that is made while the tree is being synced is not durable by that.
func TestAddDuringASync(t *testing.T) {
	f := newFiles()
	j := dirty.New(f, "one")
	j.BeginSync()
	f.durable = maps.Clone(f.now) // the sync has come past pending/
	if err := j.Add(gfid(1), dirty.Mark{Ino: 5}); err != nil {
		t.Fatal(err)
	}
	j.EndSync(func(xtime.GFID, error) {})
	if err := errors.Join(j.Add(gfid(1), dirty.Mark{Ino: 5}), j.Sync()); err != nil {
		t.Fatal(err)
	}
	if _, kept := f.durable[gfid(1).String()]; !kept {
		t.Error("a name is about to be changed, and a cut takes the mark")
	}
}

// FuzzParse: whatever is read, what is written of it reads the same.
func FuzzParse(f *testing.F) {
	f.Add("12 34 session")
	f.Add("12")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		m := dirty.Parse(text)
		if again := dirty.Parse(m.Text()); again != m && m.Session != "" {
			t.Errorf("%q is %+v, then %+v", text, m, again)
		}
	})
}
