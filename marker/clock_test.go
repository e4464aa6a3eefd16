package marker

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/marker/statefile"
	"georep/marker/xtime"
)

// TestClockNeverGoesBack steps the wall clock at random, and starts the clock anew, cleanly or by a crash.
func TestClockNeverGoesBack(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		wall := time.Unix(1_700_000_000, 0)
		path := filepath.Join(t.TempDir(), "clock")
		last := xtime.Time(0)
		var c *Clock
		for step := range 300 {
			if c == nil {
				var err error
				if c, err = openClock(path, 0, func() time.Time { return wall }, statefile.FS{}); err != nil {
					t.Fatal(err)
				}
			}
			x, err := c.Next()
			if err != nil {
				t.Fatal(err)
			}
			if x <= last || x.Time().Before(wall) {
				t.Fatalf("seed %d step %d: %v at %v after %v", seed, step, x, wall, last)
			}
			last = x
			switch r.IntN(20) {
			case 0:
				c = nil
			case 1:
				if err := c.Close(); err != nil {
					t.Fatal(err)
				}
				c = nil
			case 2:
				wall = wall.Add(-time.Duration(r.Int64N(int64(time.Hour))))
			case 3:
				wall = wall.Add(time.Duration(r.Int64N(int64(time.Hour))))
			default:
				wall = wall.Add(time.Duration(r.Int64N(3000)))
			}
		}
	}
}

func TestClockIsExactAfterACleanStop(t *testing.T) {
	wall := time.Unix(1_700_000_000, 0)
	path := filepath.Join(t.TempDir(), "clock")
	c, _ := openClock(path, 0, func() time.Time { return wall }, statefile.FS{})
	x, err := c.Next()
	if err != nil || c.Close() != nil {
		t.Fatal(err)
	}
	c, _ = openClock(path, 0, func() time.Time { return wall }, statefile.FS{})
	if y, _ := c.Next(); y != x.Next() {
		t.Errorf("%v after %v and a clean stop", y, x)
	}
}

func TestClockStartsAboveTheTree(t *testing.T) {
	floor := xtime.FromTime(time.Now().Add(time.Hour))
	c, err := OpenClock(filepath.Join(t.TempDir(), "clock"), floor)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := c.Next(); err != nil || x != floor.Next() {
		t.Errorf("%v, %v above a root at %v", x, err, floor)
	}
}

func TestClockHandsOutNothingItCannotWriteDown(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	c, err := OpenClock(filepath.Join(dir, "clock"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if x, err := c.Next(); err == nil || x != 0 {
		t.Errorf("got %v, %v", x, err)
	}
}

func TestDamagedClockIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "clock")
	if err := os.WriteFile(path, []byte("nonsense!"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenClock(path, 0); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}
