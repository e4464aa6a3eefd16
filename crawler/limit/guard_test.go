package limit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// place is a Dir at the root of nothing.
type place struct {
	path string
	gfid xtime.GFID
}

func (p place) Path() string     { return p.path }
func (p place) GFID() xtime.GFID { return p.gfid }
func (p place) Above() Dir       { return nil }

func TestLosses(t *testing.T) {
	now := time.Unix(1000, 0)
	l := Losses{now: func() time.Time { return now }}
	lose := func(id byte, n int64) { l.lose(&leaving{gfid: xtime.GFID{id}, old: n}) }
	n := place{}
	arrive := func(id byte) { l.arrive(Arrival{Dir: n, Name: "f", GFID: xtime.GFID{id}}, true) }
	lose(1, 10)
	lose(2, 5)
	now = now.Add(30 * time.Second)
	lose(3, 7)
	for id := range byte(3) {
		arrive(10 + id)
	}
	if n := l.Lately(); n != 19 {
		t.Errorf("%d, want 19", n)
	}
	now = now.Add(31 * time.Second)
	l.Start()
	if n := l.Lately(); n < 4 || n > 7 {
		t.Errorf("a minute later %d, want what is left of 7", n)
	}
	for id := range byte(100) {
		arrive(100 + id)
	}
	if n := l.Lately(); n != 0 {
		t.Errorf("what came counts as %d removed", n)
	}
	lose(4, 50)
	if n := l.Lately(); n != 50 {
		t.Errorf("after what came, and 50 that were removed: %d", n)
	}
	now = now.Add(time.Hour)
	l.Start()
	if n := l.Lately(); n != 0 || len(l.lost) != 0 {
		t.Errorf("an hour later %d, of %d inodes", n, len(l.lost))
	}
}

// TestOldNamesGoWithTheirDirectory: inodes that moved, and left their old names in a directory, are two names each until that is
// parked. From then on the removal of one loses it, and counts.
func TestOldNamesGoWithTheirDirectory(t *testing.T) {
	now := time.Unix(1000, 0)
	l := Losses{now: func() time.Time { return now }}
	g := Guard{opts: Options{MaxDelete: 50}, losses: &l}
	ids := []xtime.GFID{{1}, {2}, {3}}
	for i, from := range []string{"a/d/f", "a/d/sub/f", "a/dd/f"} {
		g.Leaves(&slave.Op{Kind: slave.OpLink, Path: "e/" + from, From: from, Record: slave.Record{GFID: ids[i]}})
	}
	if got := [3]int64{g.oldNames.count["a"], g.oldNames.count["a/d"], g.oldNames.count["a/dd"]}; got != [3]int64{3, 2, 1} {
		t.Errorf("left behind: %v", got)
	}
	g.promise([]leaving{{path: "a/d", gfid: xtime.GFID{9}, dir: true, all: 4, old: 2}})
	g.Ended(&slave.Op{Kind: slave.OpPark, Path: "a/d"}, slave.Result{Parked: true})
	if n := l.Lately(); n != 2 {
		t.Errorf("%d lost, want the directories themselves", n)
	}
	for i, want := range []int32{0, 0, 1} {
		if n := l.IsYoung(dirKey(ids[i])); n != want {
			t.Errorf("inode %d: %d names may go uncounted, want %d", i, n, want)
		}
	}
	if got := [3]int64{g.oldNames.count["a"], g.oldNames.count["a/d"], g.oldNames.count["a/dd"]}; got != [3]int64{1, 0, 1} {
		t.Errorf("left behind after that: %v", got)
	}
}

// countingTree is a slave that only counts. Each question waits until so many are asked at the same time.
type countingTree struct {
	Slave
	together int
	mu       sync.Mutex
	asked    int
	all      chan struct{}
}

func (c *countingTree) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	c.mu.Lock()
	if c.asked++; c.asked == c.together {
		close(c.all)
	}
	c.mu.Unlock()
	select {
	case <-c.all:
	case <-time.After(time.Minute):
		return nil, errors.New("nobody else asks meanwhile")
	}
	out := make([]int64, len(paths))
	for i, path := range paths {
		out[i] = 10
		if path == "" {
			out[i] = min(limit, 1000)
		}
	}
	return out, nil
}

// TestGuardAsksWithoutALock: while the slave counts for one directory, others are decided on: no lock is held over a round trip.
func TestGuardAsksWithoutALock(t *testing.T) {
	const visits = 4
	tree := &countingTree{together: visits, all: make(chan struct{})}
	l := NewLosses(time.Now)
	l.Start()
	g := NewGuard(Options{Slave: tree, MaxDelete: 50, Free: 5}, l)
	var wg sync.WaitGroup
	errs := make([]error, visits)
	for i := range visits {
		wg.Go(func() {
			n := place{fmt.Sprint(i), xtime.GFID{byte(i + 1)}}
			errs[i] = g.Allow(context.Background(), n, []slave.EntryState{{Name: "d", Kind: slave.Dir, Record: slave.Record{GFID: xtime.GFID{9, byte(i)}}}})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if g.asked != visits*10 {
		t.Errorf("%d entries are promised, want %d", g.asked, visits*10)
	}
}

// TestGuardPromisesOnce: of questions that are asked at the same time no more is promised than one after the other would be.
func TestGuardPromisesOnce(t *testing.T) {
	for range 50 {
		tree := &countingTree{together: 1, all: make(chan struct{})}
		l := NewLosses(time.Now)
		l.Start()
		g := NewGuard(Options{Slave: tree, MaxDelete: 2}, l) // 20 of 1,000: two of the directories
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() {
				n := place{fmt.Sprint(i), xtime.GFID{byte(i + 1)}}
				errs[i] = g.Allow(context.Background(), n, []slave.EntryState{{Name: "d", Kind: slave.Dir, Record: slave.Record{GFID: xtime.GFID{9, byte(i)}}}})
			})
		}
		wg.Wait()
		refused := 0
		for _, err := range errs {
			if IsRefused(err) {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if refused != len(errs)-2 || g.asked != 20 {
			t.Fatalf("%d are refused, and %d entries promised, want %d and 20", refused, g.asked, len(errs)-2)
		}
	}
}
