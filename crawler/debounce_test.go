package crawler

import (
	"testing"
	"time"

	"georep/marker/xtime"
)

// oven is a hot with a clock of its own.
type oven struct {
	*testing.T
	debounce
	at time.Time
	x  xtime.Time
}

func newOven(t *testing.T) *oven {
	o := &oven{T: t, at: time.Unix(1000, 0)}
	o.debounce = debounce{quietPeriod: time.Second, max: 5 * time.Second, now: func() time.Time { return o.at }}
	return o
}

// change lets time go by, then changes the file, and tells whether it was shipped at once.
func (o *oven) change(after time.Duration, size int64) bool {
	o.at = o.at.Add(after)
	o.x = xtime.FromTime(o.at)
	_, ok := o.ship(place{name: "f"}, o.x, size)
	return ok
}

// look lets time go by, and tells whether what waits is shipped.
func (o *oven) look(after time.Duration) bool {
	o.at = o.at.Add(after)
	_, ok := o.ship(place{name: "f"}, o.x, 1)
	return ok
}

func TestQuietFilesNeverWait(t *testing.T) {
	for _, size := range []int64{1, hotSize} {
		o := newOven(t)
		for i := range 20 {
			if !o.change(time.Second, size) {
				t.Errorf("%d bytes: change %d waits though the file was quiet", size, i)
			}
		}
	}
	o := newOven(t)
	if !o.change(0, 1) || !o.change(10*time.Millisecond, 1) || !o.change(10*time.Millisecond, 1) || o.change(10*time.Millisecond, 1) {
		t.Error("a small file waits from its third change in a row on")
	}
	o = newOven(t)
	if !o.change(0, hotSize) || o.change(10*time.Millisecond, hotSize) {
		t.Error("a large file waits from its first change in a row on")
	}
	o = newOven(t)
	o.quietPeriod = 0
	for i := range 20 {
		if !o.change(0, hotSize) {
			t.Errorf("change %d waits, without settle", i)
		}
	}
}

func TestHotFileIsShippedWhenItIsQuiet(t *testing.T) {
	o := newOven(t)
	for o.change(100*time.Millisecond, 1) {
	}
	if o.look(900*time.Millisecond) || !o.look(100*time.Millisecond) {
		t.Error("what waits is to be shipped after a second")
	}
	if !o.look(0) {
		t.Error("the same state is shipped again where need be")
	}
	if o.change(100*time.Millisecond, 1) {
		t.Error("it goes on: it waits")
	}
}

func TestHotFileIsShippedInTheEnd(t *testing.T) {
	o := newOven(t)
	shipped, first := 0, o.at
	for o.at.Sub(first) < time.Minute {
		if o.change(100*time.Millisecond, 1) {
			shipped++
		}
	}
	// Three at once, then one each 5 s.
	if shipped < 3+10 || shipped > 3+12 {
		t.Errorf("shipped %d times in a minute", shipped)
	}
}

// TestHotForgets: what is quiet takes no memory.
func TestHotForgets(t *testing.T) {
	o := newOven(t)
	for i := range 10_000 {
		o.at = o.at.Add(time.Millisecond)
		o.ship(place{name: string(rune('a' + i))}, xtime.FromTime(o.at), 1)
	}
	if n := len(o.young) + len(o.old); n > 2100 {
		t.Errorf("%d places of 10,000 are remembered", n)
	}
}

// TestHotGoesByMarks: what hints told meanwhile counts.
func TestHotGoesByMarks(t *testing.T) {
	o := newOven(t)
	for o.change(100*time.Millisecond, 1) {
	}
	o.at = o.at.Add(800 * time.Millisecond)
	o.x = xtime.FromTime(o.at)
	if w, ok := o.touch(place{name: "f"}, o.x); !ok || !w.due.Equal(o.at.Add(time.Second)) {
		t.Errorf("due %v, %v", w.due, ok)
	}
	if o.look(900*time.Millisecond) || !o.look(100*time.Millisecond) {
		t.Error("due a second after the last mark")
	}
	if _, ok := o.touch(place{name: "f"}, o.x); ok {
		t.Error("nothing waits any more")
	}
}
