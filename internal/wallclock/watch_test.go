package wallclock

import (
	"errors"
	"os"
	"testing"
	"time"
)

// clocks are two that the test moves.
type clocks struct {
	now  Reading
	dead bool
}

func (c *clocks) read() (Reading, bool) { return c.now, !c.dead }

// pass lets time go by, on both clocks.
func (c *clocks) pass(d time.Duration) { c.now.Wall, c.now.Boot = c.now.Wall.Add(d), c.now.Boot+d }

func (c *clocks) set(by time.Duration) { c.now.Wall = c.now.Wall.Add(by) }

func start() (*clocks, *Watch) {
	c := &clocks{now: Reading{Wall: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC), Boot: time.Hour}}
	return c, Of(c.read)
}

func TestStepsAreTold(t *testing.T) {
	c, w := start()
	told := func(want time.Duration) {
		t.Helper()
		s, stepped := w.Next()
		if stepped != (want != 0) || s.By() != want || stepped && !s.To.Equal(c.now.Wall) {
			t.Errorf("told %v, %v; want a step by %v", s, stepped, want)
		}
	}
	told(0)
	c.pass(8 * time.Hour) // the host slept
	told(0)
	for range 100 { // leap seconds, or a clock that is slewed
		c.pass(time.Minute)
		c.set(time.Second)
		told(0)
	}
	c.pass(time.Minute)
	c.set(-time.Hour)
	told(-time.Hour)
	told(0)
	c.pass(time.Minute)
	c.set(Least)
	c.dead = true
	told(0)
	c.dead = false
	told(Least)
	c.set(time.Hour)
	w.Since(c.now.Wall) // sees it, and leaves it to be told
	c.set(-3 * time.Hour)
	if s, ok := w.Next(); !ok || s.By() != time.Hour {
		t.Errorf("the older step comes first: %v, %v", s, ok)
	}
	told(-3 * time.Hour)
	told(0)
	for range 3 * kept {
		c.set(time.Hour)
		w.Since(c.now.Wall)
	}
	if len(w.steps) > kept || len(w.untold) > kept {
		t.Errorf("%d and %d steps are kept", len(w.steps), len(w.untold))
	}
}

func TestSinceLeavesStepsOut(t *testing.T) {
	c, w := start()
	is := func(what string, at time.Time, want time.Duration) {
		t.Helper()
		if got := w.Since(at); got != want {
			t.Errorf("%s: %v ago, want %v", what, got, want)
		}
	}
	first := c.now.Wall
	c.pass(time.Minute)
	is("without a step", first, time.Minute)
	c.set(time.Hour)
	second := c.now.Wall
	is("before a step forward", first, time.Minute)
	is("in the hour that was left out", first.Add(30*time.Minute), 0)
	c.pass(time.Minute)
	is("before a step forward, later", first, 2*time.Minute)
	is("in the hour that was left out, later", first.Add(30*time.Minute), time.Minute)
	is("after it", second, time.Minute)
	c.pass(10 * time.Minute)
	third := c.now.Wall // 13:12
	c.set(-5 * time.Minute)
	w.Since(third)
	c.pass(time.Minute) // 13:08
	is("a time of before that is still to come", third, time.Minute)
	is("what was shown twice counts as the later one", third.Add(-5*time.Minute), time.Minute)
	is("and what nearly was", third.Add(-6*time.Minute), 2*time.Minute)
	is("before a step back", third.Add(-7*time.Minute), 8*time.Minute)
	is("before both steps", first, 13*time.Minute)
	is("still to come", third.Add(time.Hour), 0)
	c.dead = true
	is("clocks that cannot be read are as they were", first, 13*time.Minute)
}

// The clocks of this machine are not set by the test. That they are compared without a false step is what can be seen.
func TestThisHost(t *testing.T) {
	w := New()
	for range 1000 {
		if s, stepped := w.Next(); stepped {
			t.Fatalf("a step by %v", s.By())
		}
	}
	if ago := w.Since(time.Now().Add(-time.Hour)); ago < time.Hour || ago > 2*time.Hour {
		t.Errorf("an hour ago is %v ago", ago)
	}
}

func TestAlarmEnds(t *testing.T) {
	a, err := NewAlarm()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Wait() }()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait ended with %v", err)
	}
}
