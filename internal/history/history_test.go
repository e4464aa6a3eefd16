package history

import (
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0)

func newWriter(t *testing.T, path string) *Writer {
	t.Helper()
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func add(t *testing.T, w *Writer, at time.Time, lag float64) {
	t.Helper()
	if err := w.Add(at, Sample{lag, 2 * lag, 3 * lag, math.NaN()}); err != nil {
		t.Fatal(err)
	}
}

// known are the points that say something.
func known(t *testing.T, path string, now time.Time, s Span) (out []Point) {
	t.Helper()
	list, err := Read(path, now, s)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != int(rings[s].slots) {
		t.Fatalf("%d points", len(list))
	}
	for i, p := range list {
		if i > 0 && p.Time.Sub(list[i-1].Time) != s.Step() || p.Time.After(now) {
			t.Fatalf("point %d is at %v, after %v", i, p.Time, list[i-1].Time)
		}
		if !math.IsNaN(p.Avg[Lag]) {
			out = append(out, p)
		}
	}
	return out
}

func TestAverageAndGreatest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	if len(known(t, path, start, Day)) != 0 {
		t.Error("there is something before anything is written")
	}
	w := newWriter(t, path)
	if _, err := Open(path); !errors.Is(err, ErrBusy) {
		t.Errorf("opened twice: %v", err)
	}
	for i := range 12 { // one slot of two minutes
		if i == 6 { // killed and started again in the middle
			w.Close()
			w = newWriter(t, path)
		}
		add(t, w, start.Add(time.Duration(i)*Every), float64(i))
	}
	now := start.Add(11 * Every)
	day := known(t, path, now, Day)
	if len(day) != 1 || day[0].Avg[Lag] != 5.5 || day[0].Max[Lag] != 11 || day[0].Max[Rate] != 22 || !math.IsNaN(day[0].Avg[Entries]) {
		t.Errorf("%+v", day)
	}
	if hour := known(t, path, now, Hour); len(hour) != 12 || hour[3].Avg[Pending] != 9 || !hour[3].Time.Equal(start.Add(3*Every)) {
		t.Errorf("%+v", hour)
	}
}

// TestAYear: the file has its size from the first sample on, and keeps it; the newest hour, day and week are whole.
func TestAYear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	w := newWriter(t, path)
	now := start
	for range 365 * 24 { // a sample an hour
		now = now.Add(time.Hour)
		add(t, w, now, 1)
	}
	for range 672 {
		now = now.Add(15 * time.Minute)
		add(t, w, now, 2)
	}
	for range 360 {
		now = now.Add(Every)
		add(t, w, now, 2)
	}
	if st, err := os.Stat(path); err != nil || st.Size() != Size || Size > 128<<10 {
		t.Errorf("%d bytes, want %d: %v", st.Size(), Size, err)
	}
	if n := len(known(t, path, now, Hour)); n != 360 {
		t.Errorf("%d of an hour", n)
	}
	if n := len(known(t, path, now, Week)); n != 672 {
		t.Errorf("%d of a week", n)
	}
}

// TestClockSteps: back and forth. What is of a time that has not come is not shown, nor mixed with what comes then.
func TestClockSteps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	w := newWriter(t, path)
	for i := range 30 {
		add(t, w, start.Add(time.Duration(i)*Every), 100)
	}
	back := start.Add(-10 * time.Minute)
	for i := range 90 { // through the time that was there before
		if i == 45 {
			w.Close()
			w = newWriter(t, path)
		}
		add(t, w, back.Add(time.Duration(i)*Every), 1)
	}
	now := back.Add(89 * Every)
	for s := range spanCount {
		for _, p := range known(t, path, now, s) {
			if p.Max[Lag] > 1 && p.Time.After(back) {
				t.Errorf("span %d: %v at %v", s, p.Max[Lag], p.Time)
			}
		}
	}
	forth := now.Add(400 * 24 * time.Hour)
	add(t, w, forth, 5)
	if list := known(t, path, forth, Week); len(list) != 1 || list[0].Avg[Lag] != 5 {
		t.Errorf("after a step forth: %+v", list)
	}
	add(t, w, time.Unix(-5, 0), 5)
}

// TestTorn: whatever bytes a crash left, the rest is read, and goes on being written.
func TestTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history")
	w := newWriter(t, path)
	for i := range 360 {
		add(t, w, start.Add(time.Duration(i)*Every), 7)
	}
	w.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	now := start.Add(359 * Every)
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		data := append([]byte{}, whole...)
		at := random.IntN(len(data))
		if random.IntN(4) == 0 {
			data = data[:at]
		} else {
			for i := at; i < min(at+random.IntN(200), len(data)); i++ {
				data[i] = byte(random.Uint32())
			}
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, p := range known(t, path, now, Hour) {
			if p.Avg[Lag] != 7 || p.Max[Lag] != 7 {
				t.Fatalf("damage at %d is believed: %+v", at, p)
			}
		}
		w := newWriter(t, path)
		add(t, w, now.Add(Every), 7)
		w.Close()
		if st, err := os.Stat(path); err != nil || st.Size() != Size {
			t.Fatalf("%v, %v", st.Size(), err)
		}
		if len(known(t, path, now.Add(Every), Hour)) == 0 {
			t.Fatal("nothing is written after damage")
		}
	}
}
