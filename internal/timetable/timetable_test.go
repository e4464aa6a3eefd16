package timetable

import (
	"fmt"
	"testing"
	"time"
	_ "time/tzdata"
)

func berlin(t *testing.T) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

const layout = "Mon 2006-01-02 15:04 MST"

// TestWindows asks for the windows at a time, and for what comes then. The clocks go forward on 2026-03-29 at 02:00, and back on
// 2026-10-25 at 03:00.
func TestWindows(t *testing.T) {
	zone := berlin(t)
	const mixed = "Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00"
	for _, c := range []struct {
		windows, at string
		open        bool
		until       string
	}{
		{"", "2026-11-30 12:00", true, ""},
		{"22:00-06:00", "2026-11-30 12:00", false, "Mon 2026-11-30 22:00 CET"},
		{"22:00-06:00", "2026-11-30 22:00", true, "Tue 2026-12-01 06:00 CET"},
		{"22:00-06:00", "2026-11-30 05:59", true, "Mon 2026-11-30 06:00 CET"},
		{"22:00-06:00", "2026-11-30 06:00", false, "Mon 2026-11-30 22:00 CET"},
		{mixed, "2026-12-03 12:00", false, "Thu 2026-12-03 22:00 CET"},
		{mixed, "2026-12-04 23:00", true, "Mon 2026-12-07 00:00 CET"}, // Friday's night goes over into the weekend
		{mixed, "2026-12-07 00:00", false, "Mon 2026-12-07 22:00 CET"},
		{"Fri-Mon 08:00-09:00", "2026-12-01 08:30", false, "Fri 2026-12-04 08:00 CET"},
		{"Sat 08:00-09:00 20:00-21:00", "2026-12-05 12:00", false, "Sat 2026-12-05 20:00 CET"},
		{"Sat 08:00-09:00, 20:00-21:00", "2026-12-05 12:00", false, "Sat 2026-12-05 20:00 CET"},
		{"Sat 08:00-09:00, 20:00-21:00", "2026-12-06 12:00", false, "Sun 2026-12-06 20:00 CET"},
		{"00:00-24:00", "2026-12-05 12:00", true, ""},
		{"mon 00:00-24:00", "2026-12-05 12:00", false, "Mon 2026-12-07 00:00 CET"},
		// In the hour that is left out, and over it.
		{"02:15-02:45", "2026-03-29 01:00", false, "Mon 2026-03-30 02:15 CEST"},
		{"02:15-04:00", "2026-03-29 01:00", false, "Sun 2026-03-29 03:00 CEST"},
		{"01:00-02:30", "2026-03-29 01:30", true, "Sun 2026-03-29 03:00 CEST"},
		{"Sun 02:15-02:45", "2026-03-23 12:00", false, "Sun 2026-04-05 02:15 CEST"},
		// In the hour that comes twice, and over it: it begins with the first one.
		{"02:15-02:45", "2026-10-25 01:00", false, "Sun 2026-10-25 02:15 CEST"},
		{"01:00-04:00", "2026-10-25 01:30", true, "Sun 2026-10-25 04:00 CET"},
	} {
		w, err := ParseWindows(c.windows)
		if err != nil {
			t.Errorf("%q: %v", c.windows, err)
			continue
		}
		at, err := time.ParseInLocation("2006-01-02 15:04", c.at, zone)
		if err != nil {
			t.Fatal(err)
		}
		open, until := w.Open(at)
		text := ""
		if !until.IsZero() {
			text = until.Format(layout)
		}
		if open != c.open || text != c.until {
			t.Errorf("%q at %s: open %v until %q; want %v, %q", c.windows, c.at, open, text, c.open, c.until)
		}
	}
	for _, bad := range []string{"x", "22:00", "22:00-", "25:00-26:00", "22:60-23:00", "22:0-23:00", "10:00-10:00", "24:00-06:00", "Mon", "Mon,",
		"Mo 10:00-11:00", "Mon-x 10:00-11:00", "10:00-11:00 Tue", "-1:00-02:00", "10:00-11:00-12:00"} {
		if w, err := ParseWindows(bad); err == nil {
			t.Errorf("%q is taken for %v", bad, w)
		}
	}
}

// TestWindowsNeverStandStill walks over a year, minute by minute around each change: what is said to come comes just then.
func TestWindowsNeverStandStill(t *testing.T) {
	zone := berlin(t)
	for _, text := range []string{"02:15-02:45", "01:00-03:00, Sun 02:30-02:40", "Sat 22:00-03:30", "Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00"} {
		w, err := ParseWindows(text)
		if err != nil {
			t.Fatal(err)
		}
		at, changes := time.Date(2026, 3, 20, 0, 0, 0, 0, zone), 0
		for end := at.AddDate(0, 8, 0); at.Before(end); changes++ {
			open, until := w.Open(at)
			if !until.After(at) {
				t.Fatalf("%s at %s: until %s", text, at, until)
			}
			if before, _ := w.Open(until.Add(-time.Second)); before != open {
				t.Errorf("%s at %s: not the same until %s", text, at, until)
			}
			if after, _ := w.Open(until); after == open {
				t.Errorf("%s at %s: nothing changes at %s", text, at, until)
			}
			at = until
		}
		if changes < 60 {
			t.Errorf("%s: %d changes in eight months", text, changes)
		}
	}
}

func TestLatest(t *testing.T) {
	zone := berlin(t)
	day := func(days, clock string) Moment {
		m, err := ParseClock(clock)
		if err != nil {
			t.Fatal(err)
		}
		if days == "" {
			return Moment{EveryDay, m}
		}
		d, err := ParseDays(days)
		if err != nil {
			t.Fatal(err)
		}
		return Moment{d, m}
	}
	daily := []Moment{day("", "08:00"), day("", "19:00")}
	weekly := []Moment{day("Mon", "00:00"), day("Fri", "23:59"), day("Sun", "00:00")}
	night := []Moment{day("", "02:30"), day("", "03:00"), day("", "12:00")}
	for _, c := range []struct {
		moments []Moment
		at      string
		which   int
		next    string
	}{
		{daily, "2026-11-30 07:59", 1, "Mon 2026-11-30 08:00 CET"}, {daily, "2026-11-30 08:00", 0, "Mon 2026-11-30 19:00 CET"},
		{daily, "2026-11-30 23:00", 1, "Tue 2026-12-01 08:00 CET"},
		{weekly, "2026-11-30 00:00", 0, "Fri 2026-12-04 23:59 CET"}, {weekly, "2026-12-05 12:00", 1, "Sun 2026-12-06 00:00 CET"},
		{weekly, "2026-12-06 12:00", 2, "Mon 2026-12-07 00:00 CET"}, {weekly[1:2], "2026-12-03 00:00", 0, "Fri 2026-12-04 23:59 CET"},
		// What the clock jumps over comes with the jump, and before what is at that time.
		{night, "2026-03-29 01:59", 2, "Sun 2026-03-29 03:00 CEST"}, {night, "2026-03-29 03:00", 1, "Sun 2026-03-29 12:00 CEST"},
	} {
		at, err := time.ParseInLocation("2006-01-02 15:04", c.at, zone)
		if err != nil {
			t.Fatal(err)
		}
		which, next := Latest(c.moments, at)
		if which != c.which || next.Format(layout) != c.next {
			t.Errorf("%v at %s: %d, next %s; want %d, %s", c.moments, c.at, which, next.Format(layout), c.which, c.next)
		}
	}
	// Once the first 02:30 of that night has come, the second one changes nothing.
	first := time.Date(2026, 10, 25, 0, 30, 0, 0, time.UTC).In(zone)
	for _, later := range []time.Duration{0, 40 * time.Minute, 60 * time.Minute, 80 * time.Minute} {
		if which, next := Latest(night, first.Add(later)); which != 0 || next.Format(layout) != "Sun 2026-10-25 03:00 CET" {
			t.Errorf("%s: %d, next %s", first.Add(later), which, next.Format(layout))
		}
	}
}

func ExampleParseWindows() {
	w, _ := ParseWindows("Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00")
	open, until := w.Open(time.Date(2026, 12, 4, 12, 0, 0, 0, time.UTC))
	fmt.Println(open, until.Format(layout))
	// Output: false Fri 2026-12-04 22:00 UTC
}
