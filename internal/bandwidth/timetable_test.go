package bandwidth

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestParseTimetable(t *testing.T) {
	at := func(s string) time.Time {
		when, err := time.Parse("2006-01-02 15:04", s)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	const week = "Mon-00:00,512 Fri-23:59,10M Sun-00:00,off" // as rclone's manual has it
	for _, c := range []struct {
		table, at string
		rate      int64
		until     string
	}{
		{"0", "2026-11-30 12:00", 0, ""}, {"off", "2026-11-30 12:00", 0, ""}, {"10MB", "2026-11-30 12:00", 10_000_000, ""},
		{"08:00,2M 19:00,off", "2026-11-30 07:00", 0, "2026-11-30 08:00"},
		{"08:00,2M 19:00,off", "2026-11-30 08:00", 2 << 20, "2026-11-30 19:00"},
		{"19:00,off 08:00,2MB", "2026-11-30 18:59", 2_000_000, "2026-11-30 19:00"},
		{week, "2026-12-02 12:00", 512 << 10, "2026-12-04 23:59"}, {week, "2026-12-05 12:00", 10 << 20, "2026-12-06 00:00"},
		{week, "2026-12-06 12:00", 0, "2026-12-07 00:00"},
		{"Mon-Fri-08:00,1M Mon-Fri-18:00,0", "2026-12-05 12:00", 0, "2026-12-07 08:00"},
	} {
		table, err := ParseTimetable(c.table)
		if err != nil {
			t.Errorf("%q: %v", c.table, err)
			continue
		}
		rate, until := table.At(at(c.at))
		text := ""
		if !until.IsZero() {
			text = until.Format("2006-01-02 15:04")
		}
		if rate != c.rate || text != c.until {
			t.Errorf("%q at %s: %d until %q; want %d until %q", c.table, c.at, rate, text, c.rate, c.until)
		}
	}
	for _, bad := range []string{"", "x", "08:00", "08:00,", ",1M", "8,1M", "25:00,1M", "24:00,1M", "08:00,2048", "Mon-08:00", "Mo-08:00,1M",
		"08:00,1M 19:00", "08:00,1M,19:00,2M", "08:00,-1"} {
		if table, err := ParseTimetable(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, table)
		}
	}
}

// TestTimetable: what is being written when the limit changes goes on with the new one.
func TestTimetable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		clock := func(d time.Duration) string { return began.Add(d).Format("15:04") }
		table, err := ParseTimetable(fmt.Sprintf("%s,1K %s,32K %s,off", clock(-time.Hour), clock(time.Minute), clock(2*time.Minute)))
		if err != nil {
			t.Fatal(err)
		}
		var below record
		limit := NewTimed(t.Context(), table)
		ended := make(chan time.Duration, 1)
		go func() {
			if _, err := limit.Writer(&below).Write(data(4 << 20)); err != nil {
				t.Error(err)
			}
			ended <- time.Since(began)
		}()
		if took := <-ended; took < 2*time.Minute || took > 2*time.Minute+time.Second {
			t.Errorf("took %v", took)
		}
		sum := 0
		for i, size := range below.sizes {
			if below.times[i].Sub(began) < time.Minute {
				sum += size
			}
		}
		if sum < 50<<10 || sum > 61<<10 {
			t.Errorf("%d bytes in the slow minute", sum)
		}
	})
}

// TestClockIsSet: the limit is that of the time on the clock also where that was set, back or forth, just before the limit changes.
func TestClockIsSet(t *testing.T) {
	table, err := ParseTimetable("17:00,1K 18:00,2K 19:00,3K")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 30, 18, 59, 30, 0, time.Local)
	limit := NewTimed(t.Context(), table)
	limit.clock = func() time.Time { return now }
	for _, at := range []struct {
		hour, minute int
		want         int64
	}{{18, 59, 2 << 10}, {17, 30, 1 << 10}, {18, 59, 2 << 10}, {16, 0, 3 << 10}, {19, 0, 3 << 10}, {18, 59, 2 << 10}} {
		now = time.Date(2026, 11, 30, at.hour, at.minute, 30, 0, time.Local)
		if limit.pay(1); limit.rate != at.want {
			t.Errorf("%s: %d bytes a second, want %d", now.Format("15:04"), limit.rate, at.want)
		}
	}
}
