package gfidindex

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// add notes entries and writes them.
func add(x *Index, all ...Entry) error {
	for _, e := range all {
		x.Note(e)
	}
	return x.Commit()
}

// limit lets a few entries fill what memory may hold.
const limit = 1024

func open(t *testing.T, path string, before func(op, name string) error) *Index {
	t.Helper()
	d, err := beneath.OpenRoot(path, true)
	if err != nil {
		t.Fatal(err)
	}
	x, err := Open(d, before)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close(); d.Close() })
	x.limit = limit
	return x
}

func key(n int) Key {
	return KeyOf(xtime.GFID{0: 1, 12: byte(n >> 16), 13: byte(n >> 8), 14: byte(n)})
}

// name is one of any length from 1 to 255.
func name(n int) string {
	text := fmt.Sprint(n, "-")
	return text + strings.Repeat("x", n*7%(256-len(text)))
}

// fill adds n entries, in portions, and what the index has to know of them then.
func fill(t *testing.T, x *Index, want map[Key]Place, from, to int) {
	t.Helper()
	var some []Entry
	for i := from; i < to; i++ {
		e := Entry{key(i), Place{key(i / 10), name(i)}}
		if i%10 == 0 {
			e.Dir = Root
		}
		want[e.Key] = e.Place
		if some = append(some, e); len(some) == 100 || i == to-1 {
			if err := add(x, some...); err != nil {
				t.Fatal(err)
			}
			some = some[:0]
		}
	}
}

func check(t *testing.T, x *Index, want map[Key]Place) {
	t.Helper()
	for k, p := range want {
		got, ok := x.Find(k)
		if ok != (p.Name != "") || ok && got != p {
			t.Fatalf("%x: got %v %v, want %v", k, got, ok, p)
		}
	}
	if p, ok := x.Find(key(1 << 22)); ok {
		t.Fatalf("what nobody told is at %v", p)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return out
}

func TestWhatWasToldLastIsFound(t *testing.T) {
	dir, want := t.TempDir(), map[Key]Place{}
	x := open(t, dir, nil)
	fill(t, x, want, 0, 5*limit)
	check(t, x, want)
	// Some move, some are forgotten, in a later run than the one that has them.
	rnd := rand.New(rand.NewPCG(1, 2))
	for range limit / 2 {
		i := rnd.IntN(5 * limit)
		e := Entry{key(i), Place{Root, fmt.Sprint("moved", i)}}
		if i%3 == 0 {
			e.Place = Place{}
		}
		want[e.Key] = e.Place
		if err := add(x, e); err != nil {
			t.Fatal(err)
		}
	}
	check(t, x, want)
	if n := len(x.runs); n > 4 {
		t.Errorf("%d runs", n)
	}
	if err := x.Synced(x.Written()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); len(got) != len(x.runs)+1 {
		t.Errorf("%d runs in files %v", len(x.runs), got)
	}
	x.Close()
	again := open(t, dir, nil)
	check(t, again, want)
	fill(t, again, want, 5*limit, 7*limit)
	check(t, again, want)
	again.Close()
	if err := add(again, Entry{1, Place{Root, "a"}}); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestPath(t *testing.T) {
	x := open(t, t.TempDir(), nil)
	put := func(k, dir Key, name string) {
		if err := add(x, Entry{k, Place{dir, name}}); err != nil {
			t.Fatal(err)
		}
	}
	path := func(k Key) string {
		p, ok := x.Path(k)
		if !ok {
			return "?"
		}
		return p
	}
	put(1, Root, "a")
	put(2, 1, "b")
	put(3, 2, "f")
	if got := path(3); got != "a/b/f" || x.paths[2] != "a/b" || x.paths[1] != "a" {
		t.Fatalf("got %q, known %v", got, x.paths)
	}
	if got, ok := x.DirPath(2); !ok || got != "a/b" {
		t.Fatalf("directory: %q %v", got, ok)
	}
	put(1, Root, "moved")
	if got := path(3); got != "moved/b/f" {
		t.Errorf("after a move: %q", got)
	}
	put(2, 9, "b")
	if got := path(3); got != "?" {
		t.Errorf("in a directory that is not known: %q", got)
	}
	for n := Key(1); n <= 9; n++ { // circles of every length
		for k := Key(1); k <= n; k++ {
			put(10+k, 10+k%n+1, "x")
		}
		put(30, 11, "before the circle")
		if got := path(11) + path(30); got != "??" {
			t.Errorf("a circle of %d: %q", n, got)
		}
	}
	deep := Key(100)
	put(deep, Root, "d")
	for range 3000 {
		put(deep+1, deep, "d")
		deep++
	}
	if got := path(deep); len(got) != 2*3001-1 {
		t.Errorf("deep: %d bytes", len(got))
	}
}

// TestCompact forgets a directory: what lies in it goes too, and the rest stays, while others go on.
func TestCompact(t *testing.T) {
	dir, want := t.TempDir(), map[Key]Place{}
	x := open(t, dir, nil)
	fill(t, x, want, 0, 4*limit)
	before := x.total()
	for i := range limit {
		e := Entry{Key: key(i / 10)}
		if err := add(x, e); err != nil {
			t.Fatal(err)
		}
		want[e.Key] = Place{}
	}
	live := func() bool { return true }
	if err := x.Compact(func() bool { return false }); !errors.Is(err, ErrClosed) {
		t.Fatalf("given up: %v", err)
	}
	for range 3 { // what lay in what lay in it
		x.base = 0
		if err := x.Compact(live); err != nil {
			t.Fatal(err)
		}
	}
	if x.total() >= before {
		t.Errorf("%d slots, before %d", x.total(), before)
	}
	for range 5 {
		for k, p := range want {
			if at, ok := want[p.Dir]; p.Dir != Root && (!ok || at.Name == "") {
				want[k] = Place{}
			}
		}
	}
	for k, p := range want {
		got, ok := x.Find(k)
		if p.Name != "" && (!ok || got != p) {
			t.Fatalf("%x: got %v %v, want %v", k, got, ok, p)
		}
	}
	if err := x.Compact(live); err != nil || len(x.runs) != 1 {
		t.Fatalf("not worth it: %v, %d runs", err, len(x.runs))
	}
	if err := x.Synced(x.Written()); err != nil || len(names(t, dir)) != 2 {
		t.Fatalf("%v, files %v", err, names(t, dir))
	}
}

// TestEveryChangeFails fails the first, second, third ... change to the file system: nothing wrong is ever told, what can
// still be told is told, and the next one that is opened works.
func TestEveryChangeFails(t *testing.T) {
	bad := errors.New("bad")
	for n := 0; ; n++ {
		dir, want, count := t.TempDir(), map[Key]Place{}, 0
		x := open(t, dir, nil)
		x.before = func(op, name string) error {
			if count++; count-1 == n {
				return bad
			}
			return nil
		}
		for i := range 3 {
			var all []Entry
			for j := range limit {
				e := Entry{key(i*limit + j), Place{Root, fmt.Sprint("n", i, j)}}
				want[e.Key] = e.Place
				all = append(all, e)
			}
			if err := add(x, all...); err != nil && !errors.Is(err, bad) {
				t.Fatal(err)
			}
		}
		if err := x.Synced(x.Written()); err != nil && !errors.Is(err, bad) {
			t.Fatal(err)
		}
		x.base = -1 << 40
		if err := x.Compact(func() bool { return true }); err != nil && !errors.Is(err, bad) {
			t.Fatal(err)
		}
		failed := count > n
		sound := func(x *Index) (found int) {
			for k, p := range want {
				got, ok := x.Find(k)
				if ok && got != p {
					t.Fatalf("change %d: %x: got %v, want %v", n, k, got, p)
				}
				if ok {
					found++
				}
			}
			return found
		}
		if found := sound(x); found < len(want)-limit || !failed && found != len(want) {
			t.Fatalf("change %d: %d of %d found", n, found, len(want))
		}
		x.Close()
		again := open(t, dir, nil)
		if found := sound(again); found < len(want)-limit {
			t.Fatalf("change %d: %d of %d found afterwards", n, found, len(want))
		}
		fill(t, again, want, 0, 2*limit)
		check(t, again, map[Key]Place{key(0): want[key(0)]})
		if !failed {
			return
		}
	}
}

// TestTorn cuts files as a power cut may, and puts things there that nobody wrote.
func TestTorn(t *testing.T) {
	whole, want := t.TempDir(), map[Key]Place{}
	x := open(t, whole, nil)
	fill(t, x, want, 0, limit+100)
	x.Close()
	for _, damage := range []func(path string) error{
		func(path string) error { return os.Truncate(path, 0) },
		func(path string) error { return os.Truncate(path, 1000) },
		func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("\xff", 1<<16)), 0o600) },
	} {
		for _, victim := range names(t, whole) {
			dir := t.TempDir()
			for _, n := range names(t, whole) {
				b, err := os.ReadFile(filepath.Join(whole, n))
				if err == nil {
					err = os.WriteFile(filepath.Join(dir, n), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := damage(filepath.Join(dir, victim)); err != nil {
				t.Fatal(err)
			}
			x := open(t, dir, nil)
			for k, p := range want {
				if got, ok := x.Find(k); ok && got != p {
					t.Fatalf("%s: %x: got %v, want %v", victim, k, got, p)
				}
			}
			now := map[Key]Place{}
			fill(t, x, now, 0, 2000)
			check(t, x, now)
			x.Close()
			check(t, open(t, dir, nil), now)
		}
	}
}

func FuzzCut(f *testing.F) {
	for _, n := range []int{0, 1, 46, 47, 255} {
		e := Entry{7, Place{9, strings.Repeat("n", n)}}
		f.Add(e.append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) >= slotSize {
			e, n, ok := cut(b)
			if n < slotSize || n > len(b) {
				t.Fatalf("%d of %d bytes", n, len(b))
			}
			if ok {
				got, _, same := cut(e.append(nil))
				if !same || got != e {
					t.Fatalf("%+v became %+v", e, got)
				}
			}
			b = b[n:]
		}
	})
}
