package crawler

import (
	"testing"
	"time"

	"georep/marker/xtime"
)

func TestLag(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	x := func(s float64) xtime.Time { return xtime.FromTime(at(s)) }
	var l lag
	check := func(what string, got, want time.Time) {
		t.Helper()
		if !got.Equal(want) {
			t.Errorf("%s: since %v, want %v", what, got.Sub(at(0)), want.Sub(at(0)))
		}
	}
	check("never in step: since the stamp", l.behind(at(50), x(10), 0), at(10))
	check("the same stamp: the same change", l.behind(at(60), x(10), x(55)), at(10))
	check("a later stamp", l.behind(at(60), x(30), 0), at(30))
	check("in step", l.inStep(at(70), at(69)), time.Time{})
	check("since the last look", l.behind(at(75), x(30), 0), at(70))
	l.inStep(at(80), at(79))
	check("the hint tells", l.behind(at(85), x(30), x(84)), at(84))
	check("a clock that was set back", l.behind(at(85), x(900), 0), at(85))
	check("the marker does not keep up", l.inStep(at(120), at(100)), at(100))
	check("so what comes then may be as old", l.behind(at(121), x(30), 0), at(100))
}

func TestHintsKnowTheFirstMark(t *testing.T) {
	h := &Hints{}
	h.Up()
	h.Hint(hintOf(1, 10, 20, "a"))
	h.Hint(hintOf(2, 20, 30, "a", "b"))
	if h.after(10) != 20 || h.after(20) != 0 || h.Names() != 2 {
		t.Errorf("after 10 came %v, after 20 %v; %d names", h.after(10), h.after(20), h.Names())
	}
	h.drain()
	if h.after(30) != 0 || h.Names() != 0 {
		t.Errorf("after 30 came %v; %d names", h.after(30), h.Names())
	}
	h.Hint(hintOf(3, 30, 40, "a"))
	if h.after(30) != 40 {
		t.Errorf("after 30 came %v", h.after(30))
	}
	h.Gap()
	if h.after(30) != 0 {
		t.Errorf("%v came after 30, across a gap", h.after(30))
	}
}
