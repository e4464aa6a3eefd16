package crawler_test

import (
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/limit"
	"georep/integration/harness/moves"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// movable is a world with contents that nobody wants to send again. Later than their birth is what the slave has.
func movable(t *testing.T) *world {
	w := inMemory(t, false)
	w.maxDelete = 100
	w.connect()
	w.ok(moves.In(w.master).Fill())
	w.mark("")
	w.inStep()
	return w
}

func (w *world) rename(from, to string) { w.ok(os.Rename(w.at(from), w.at(to))) }

func (w *world) exchange(a, b string) {
	w.ok(unix.Renameat2(unix.AT_FDCWD, w.at(a), unix.AT_FDCWD, w.at(b), unix.RENAME_EXCHANGE))
}

// TestMovesSendNoContent makes every kind of move, and has the crawl of a new session find it, or hints tell of it.
func TestMovesSendNoContent(t *testing.T) {
	for _, c := range moves.Cases() {
		for _, how := range []string{"a crawl", "hints"} {
			t.Run(c.Name+" by "+how, func(t *testing.T) {
				w := movable(t)
				if how == "hints" {
					w = movableByHints(t)
				}
				tree := moves.In(w.master)
				w.ok(tree.Do(c))
				touched, err := tree.Touched()
				w.ok(err)
				if how == "hints" {
					w.tell(touched...)
				} else {
					w.connect()
					w.mark(touched...)
				}
				w.counters.Bytes.Store(0)
				w.inStep()
				if n := w.counters.Bytes.Load(); n != 0 {
					t.Errorf("%d bytes were sent", n)
				}
				if n := w.counters.Visited.Load(); n != 0 && how == "hints" && !c.Lists {
					t.Errorf("%d directories were listed", n)
				}
				if how == "hints" {
					w.checkStamps()
				}
				w.ok(w.crawler.Clean(t.Context(), 0))
				w.inStep()
			})
		}
	}
}

// TestMovedFromOutside: what looks as if it had been moved is shipped where the slave does not have it.
func TestMovedFromOutside(t *testing.T) {
	w := newWorld(t)
	w.maxDelete = 100
	outside := t.TempDir()
	w.ok(os.MkdirAll(filepath.Join(outside, "d/e"), 0o755))
	w.ok(os.WriteFile(filepath.Join(outside, "d/e/f"), []byte("inside"), 0o644))
	w.ok(os.WriteFile(filepath.Join(outside, "g"), []byte("another"), 0o644))
	w.write("g", "old")
	w.write("h/i", "kept")
	w.mark("g", "h/i")
	w.inStep()
	w.ok(os.Rename(filepath.Join(outside, "d"), w.at("h/d")))
	w.ok(os.Rename(filepath.Join(outside, "g"), w.at("g")))
	w.mark("h/d", "g")
	w.inStep()
}

// TestRandomMoves moves, swaps, replaces, removes and makes at random, with a pass now and then. The slave is always equal,
// and nothing that it had is sent again.
func TestRandomMoves(t *testing.T) { randomMoves(t, movable, (*world).mark) }

// TestRandomMovesWithNothingToRemove is the same where max-delete allows no removal, so that whatever has left its place
// stands there until it is claimed, and what was removed needs the operator's word.
func TestRandomMovesWithNothingToRemove(t *testing.T) {
	if os.Getenv("GEOREP_SEEDS") == "" {
		t.Setenv("GEOREP_SEEDS", "3")
	}
	for name, mark := range map[string]func(*world, ...string){"crawls": (*world).mark, "hints": (*world).tell} {
		t.Run(name, func(t *testing.T) {
			make := movable
			if name == "hints" {
				make = movableByHints
			}
			randomMoves(t, func(t *testing.T) *world {
				w := make(t)
				w.maxDelete, w.strict = 0, true
				w.connect()
				w.inStep()
				return w
			}, mark)
		})
	}
}

// withWord does a pass, and where that is refused another one with the operator's word.
func (w *world) withWord() {
	w.t.Helper()
	if _, err := w.crawler.Pass(w.t.Context()); !errors.Is(err, limit.ErrMaxDelete) {
		w.ok(err)
		return
	}
	was := w.maxDelete
	w.maxDelete = 100
	w.connect()
	w.pass()
	w.maxDelete = was
	w.connect()
}

func randomMoves(t *testing.T, make func(*testing.T) *world, mark func(*world, ...string)) {
	for seed := range seeds(t, 10) {
		w := make(t)
		rnd := rand.New(rand.NewPCG(seed, 11))
		for range 12 {
			fresh := int64(0)
			for range rnd.IntN(8) + 1 {
				marks, n := w.randomMove(rnd)
				mark(w, marks...)
				fresh += n
			}
			before := w.sent()
			if rnd.IntN(4) == 0 {
				w.connect()
			}
			if w.strict {
				w.withWord()
			}
			if out := w.pass(); out.Stime == w.now {
				w.ok(w.crawler.Clean(t.Context(), 0)) // a parked name counts as one
			}
			w.inStep()
			if n := w.sent() - before; n > fresh {
				t.Errorf("seed %d: %d bytes were sent, %d are new", seed, n, fresh)
			}
			w.ok(w.crawler.Clean(t.Context(), 0))
		}
	}
}

// sent is how many bytes of content were, ever.
func (w *world) sent() int64 { return w.sentBefore + w.counters.Bytes.Load() }

// seeds are those to try: n of them, unless the environment says otherwise.
func seeds(t *testing.T, n uint64) iter.Seq[uint64] {
	first := uint64(0)
	for name, v := range map[string]*uint64{"GEOREP_SEED": &first, "GEOREP_SEEDS": &n} {
		if text := os.Getenv(name); text != "" {
			if _, err := fmt.Sscan(text, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return func(yield func(uint64) bool) {
		for seed := first; seed < first+n && yield(seed); seed++ {
		}
	}
}

// randomMove does one thing at random. It gives what is to be marked, and how many bytes are new.
func (w *world) randomMove(rnd *rand.Rand) (marks []string, fresh int64) {
	var all []string
	w.ok(filepath.WalkDir(w.master, func(p string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(w.master, p); rel != "." {
			all = append(all, rel)
		}
		return err
	}))
	a := all[rnd.IntN(len(all))]
	b := all[rnd.IntN(len(all))]
	switch rnd.IntN(10) {
	case 0, 1:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("n", rnd.IntN(20)))
		_ = os.Rename(w.at(a), w.at(b)) // into itself, over a full directory: refused
	case 2, 3:
		_ = unix.Renameat2(unix.AT_FDCWD, w.at(a), unix.AT_FDCWD, w.at(b), unix.RENAME_EXCHANGE)
	case 4:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("w", rnd.IntN(1000)))
		if _, err := os.Lstat(w.at(b)); err != nil {
			w.write(b, "fresh")
			fresh = 5
		}
	case 5:
		if len(all) > 20 && rnd.IntN(4) == 0 {
			w.ok(os.RemoveAll(w.at(a)))
		}
	case 6:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("d", rnd.IntN(20)))
		_ = os.Mkdir(w.at(b), 0o755)
	case 7:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("n", rnd.IntN(20)))
		flags := []uint{unix.RENAME_WHITEOUT, unix.RENAME_NOREPLACE}[rnd.IntN(2)]
		_ = unix.Renameat2(unix.AT_FDCWD, w.at(a), unix.AT_FDCWD, w.at(b), flags)
	case 8:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("s", rnd.IntN(20)))
		mode := []uint32{unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK}[rnd.IntN(4)]
		_ = unix.Mknod(w.at(b), mode|0o600, int(unix.Mkdev(uint32(rnd.IntN(3)), 1)))
	case 9:
		b = filepath.Join(filepath.Dir(b), fmt.Sprint("l", rnd.IntN(20)))
		_ = os.Symlink(a, w.at(b))
	}
	return []string{a, b}, fresh
}

// spot is a name in a directory, wherever that moves.
type spot struct {
	dir  xtime.GFID
	name string
}

func (w *world) spots(paths []string) (out []spot) {
	w.t.Helper()
	for _, p := range paths {
		dir, name := beneath.Split(p)
		if d, err := w.root.OpenPath(dir); err == nil {
			g, err := d.GFID("")
			w.ok(err)
			d.Close()
			out = append(out, spot{g, name})
		}
	}
	return out
}

// where gives the paths of spots as they are now.
func (w *world) where(spots []spot) (paths []string) {
	w.t.Helper()
	w.ok(filepath.WalkDir(w.master, func(p string, e os.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(w.master, p)
		if rel == "." {
			rel = ""
		}
		dir, name := beneath.Split(rel)
		d, err := w.root.OpenPath(dir)
		w.ok(err)
		defer d.Close()
		g, err := d.GFID(name)
		w.ok(err)
		for _, s := range spots {
			if s.dir == g {
				paths = append(paths, beneath.Join(rel, s.name))
			}
		}
		return nil
	}))
	return paths
}

// TestMovesSeenHalf: a crawl meets moves of which no mark tells yet, of each one end or both, and sends nothing for them, nor
// for what is left of them when the marks have come.
func TestMovesSeenHalf(t *testing.T) {
	for name, mark := range map[string]func(*world, ...string){"crawls": (*world).mark, "hints": (*world).tell} {
		t.Run(name, func(t *testing.T) {
			for seed := range seeds(t, 2) {
				w := movable(t)
				if name == "hints" {
					w = movableByHints(t)
				}
				rnd := rand.New(rand.NewPCG(seed, 12))
				w.forget()
				var untold [][]spot
				fresh := int64(0)
				for range 12 {
					for range rnd.IntN(8) + 1 {
						marks, n := w.randomMove(rnd)
						untold, fresh = append(untold, w.spots(marks)), fresh+n
					}
					for len(untold) > 0 && rnd.IntN(8) > 0 {
						mark(w, w.where(untold[0])...)
						untold = untold[1:]
					}
					w.pass()
				}
				for _, spots := range untold {
					mark(w, w.where(spots)...)
				}
				w.pass()
				w.ok(w.crawler.Clean(t.Context(), 0)) // what is parked may be a further name of what moved
				w.inStep()
				if n := w.counters.Bytes.Load(); n > fresh {
					t.Errorf("seed %d: %d bytes were sent, %d are new", seed, n, fresh)
				}
			}
		})
	}
}

// TestMovesOutOfWhatWasParkedBefore: what moved out of a directory that was removed is taken from where an earlier session
// parked that, although what was parked long ago is deleted meanwhile.
func TestMovesOutOfWhatWasParkedBefore(t *testing.T) {
	w := movable(t)
	w.rename("z/deep/sub", "c/saved")
	w.rename("z/deep/f1", "a/saved")
	w.ok(os.RemoveAll(w.at("z")))
	w.mark("z")
	w.pass()
	w.connect()
	w.ok(w.crawler.Clean(t.Context(), time.Hour))
	w.mark("c/saved", "a/saved")
	w.inStep()
	if n := w.counters.Bytes.Load(); n != 0 {
		t.Errorf("%d bytes were sent", n)
	}
}
