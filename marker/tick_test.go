package marker

import (
	"errors"
	"testing"

	"georep/integration/harness/fstest"
	"georep/marker/xtime"
)

// TestTick: a tick is later than all marks before it and earlier than all to come; where no marker lives the next scan gives it.
func TestTick(t *testing.T) {
	v := newVol(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{})).start()
	change := func(script string) xtime.Time {
		t.Helper()
		v.sh(script)
		v.settle()
		return v.xtime("")
	}
	before := change("echo x > f")
	tick, err := TakeTick(t.Context(), v.o.Dir, "mine")
	if err != nil {
		t.Fatal(err)
	}
	if tick <= before {
		t.Errorf("a tick of %v after a mark of %v", tick, before)
	}
	if x := v.xtime(""); x != before {
		t.Errorf("the tick marked the root: %v", x)
	}
	if again, err := TakeTick(t.Context(), v.o.Dir, "mine"); again != tick || err != nil {
		t.Errorf("asked again by that name: %v, %v", again, err)
	}
	after := change("echo y > f")
	if after <= tick {
		t.Errorf("a mark of %v after a tick of %v", after, tick)
	}
	v.halt()
	if _, err := TakeTick(t.Context(), v.o.Dir, "other"); !errors.Is(err, ErrNotRunning) {
		t.Fatalf("without a marker: %v", err)
	}
	if _, err := Once(t.Context(), v.o); err != nil {
		t.Fatal(err)
	}
	if other, err := TakeTick(t.Context(), v.o.Dir, "other"); err != nil || other <= after {
		t.Errorf("of a scan: %v after %v, %v", other, after, err)
	}
}
