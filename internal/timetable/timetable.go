// Package timetable knows times of the week by the clock on the wall: moments at which something changes, and windows in
// which something may be done. Both go by the zone of the time that they are asked about. A clock that is put forward jumps over
// a moment, which counts from the jump on; one that is put back does not come to the same moment twice.
//
// It reads no clock, and keeps nothing.
package timetable

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Moment is a time of the day, on one day of the week or on each.
type Moment struct {
	Days   Days
	Minute int // after midnight, at most 24 * 60, which is the next day's midnight
}

// Days is a set of days of the week, a bit each, Sunday's first. The zero value has none, and a
// Moment or Window with it never comes.
type Days uint8

// EveryDay has all of them.
const EveryDay Days = 1<<7 - 1

// has tells whether the day is in the set.
func (d Days) has(w time.Weekday) bool { return d>>w&1 == 1 }

// around is how many days before and after the day of a time are looked at: two weeks, since the clock may jump over a window of
// one day in the week, and one for the zone.
const around = 15

// at gives the moment on the day that is so many days after that of t, and whether that is one of
// its days. It does not matter how long the day is: the minute is that of the clock on the wall.
func (m Moment) at(t time.Time, days int) (time.Time, bool) {
	y, mo, d := t.Date()
	day := time.Date(y, mo, d+days, 12, 0, 0, 0, t.Location())
	if !m.Days.has(day.Weekday()) {
		return time.Time{}, false
	}
	return onClock(day, m.Minute), true
}

// onClock is when the clock shows so many minutes after the midnight that begins the day; where it jumps over that, the jump.
func onClock(day time.Time, minute int) time.Time {
	y, mo, d := day.Date()
	t := time.Date(y, mo, d, 0, minute, 0, 0, day.Location())
	want := time.Date(y, mo, d, 0, minute, 0, 0, time.UTC)
	_, offset := t.Zone()
	shown := t.UTC().Add(time.Duration(offset) * time.Second)
	begin, end := t.ZoneBounds()
	switch {
	case shown.After(want):
		return begin
	case shown.Before(want):
		return end
	}
	// Where the clock shows it twice the first time counts.
	if !begin.IsZero() {
		_, before := begin.Add(-time.Second).Zone()
		if first := t.Add(time.Duration(offset-before) * time.Second); before > offset && first.Before(begin) {
			return first
		}
	}
	return t
}

// Latest tells which of the moments came last, at t or before, and when; and when the next one of
// them comes. Of those that come at once the last one counts. There must be some. next is zero
// where none comes within two weeks, which only an empty set of days makes so.
func Latest(moments []Moment, t time.Time) (which int, next time.Time) {
	var last time.Time
	for i, m := range moments {
		for day := -around; day <= around; day++ {
			at, is := m.at(t, day)
			switch {
			case !is:
			case !at.After(t):
				if !at.Before(last) {
					which, last = i, at
				}
			case next.IsZero() || at.Before(next):
				next = at
			}
		}
	}
	return which, next
}

// Windows are spans of time in the week; none stand for always. One whose To is not after its From
// when the clock jumps is empty that day.
type Windows []Window

// Window is from one time of the day to another, which may be on the day after, on some days of the week.
type Window struct {
	Days     Days // on which it begins
	From, To int  // minutes after midnight; To may be beyond 24 * 60
}

// Open tells whether t is in one of the windows, and when that changes: zero for never. Windows
// that touch or overlap count as one, so until is the moment at which really nothing is open any
// more.
func (w Windows) Open(t time.Time) (open bool, until time.Time) {
	if len(w) == 0 {
		return true, time.Time{}
	}
	spans := w.spans(t)
	at := t
	for _, s := range spans {
		if !s.from.After(at) && s.to.After(at) { // which may go over into others
			open, at = true, s.to
		}
	}
	if open {
		if at.After(t.AddDate(0, 0, around-1)) {
			return true, time.Time{}
		}
		return true, at
	}
	for _, s := range spans {
		if s.from.After(t) {
			return false, s.from
		}
	}
	return false, time.Time{}
}

// span is one window on one day, as moments of time.
type span struct{ from, to time.Time }

// spans are the windows around t, in the order in which they begin. Each is as long as the clock
// makes it: one that begins before a jump and ends after it is shorter, or longer.
func (w Windows) spans(t time.Time) []span {
	var out []span
	for _, one := range w {
		for day := -around; day <= around; day++ {
			from, is := Moment{one.Days, one.From}.at(t, day)
			if !is {
				continue
			}
			y, mo, d := t.Date()
			s := span{from, onClock(time.Date(y, mo, d+day, 12, 0, 0, 0, t.Location()), one.To)}
			if s.to.After(s.from) { // the clock may have jumped over it
				out = append(out, s)
			}
		}
	}
	slices.SortFunc(out, func(a, b span) int { return a.from.Compare(b.from) })
	return out
}

// A minute beyond it is on the next day.
const dayMinutes = 24 * 60

// ParseClock reads a time of the day such as 07:30; 24:00 is the end of the day. Two digits of
// minutes are wanted, so that 7:5 is no riddle.
func ParseClock(s string) (minute int, err error) {
	h, m, ok := strings.Cut(s, ":")
	hours, err := strconv.ParseUint(h, 10, 8)
	minutes, err2 := strconv.ParseUint(m, 10, 8)
	minute = int(hours*60 + minutes)
	if !ok || err != nil || err2 != nil || len(m) != 2 || minutes > 59 || minute > dayMinutes {
		return 0, fmt.Errorf("%q is no time of the day such as 07:30", s)
	}
	return minute, nil
}

var names = [...]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// ParseDay reads a day of the week by its name, or the first letters of that, three at least.
func ParseDay(s string) (time.Weekday, error) {
	for i, name := range names {
		if len(s) >= 3 && strings.HasPrefix(name, strings.ToLower(s)) {
			return time.Weekday(i), nil
		}
	}
	return 0, fmt.Errorf("%q is no day of the week such as Mon", s)
}

// ParseDays reads a day, or a range of days such as Mon-Fri. A range may go over the end of the
// week, as in Sat-Mon.
func ParseDays(s string) (Days, error) {
	first, last, isRange := strings.Cut(s, "-")
	from, err := ParseDay(first)
	if err != nil || !isRange {
		return 1 << from, err
	}
	to, err := ParseDay(last)
	if err != nil {
		return 0, err
	}
	days := Days(0)
	for d := from; ; d = (d + 1) % 7 {
		days |= 1 << d
		if d == to {
			return days, nil
		}
	}
}

// ParseWindows reads windows such as "22:00-06:00" or "Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00". Days stand before the times
// that they are for; where there are none, it is every day. Nothing stands for always.
func ParseWindows(s string) (Windows, error) {
	var out Windows
	days, used := Days(0), false // used: times stood after them
	for _, word := range strings.Fields(strings.ReplaceAll(s, ",", " , ")) {
		switch {
		case word == ",":
			if used {
				days, used = 0, false
			}
		case word[0] >= '0' && word[0] <= '9':
			w, err := parseWindow(word)
			if err != nil {
				return nil, err
			}
			if w.Days = days; days == 0 {
				w.Days = EveryDay
			}
			out, used = append(out, w), true
		default:
			more, err := ParseDays(word)
			if err != nil {
				return nil, err
			}
			if used {
				days, used = 0, false
			}
			days |= more
		}
	}
	if days != 0 && !used {
		return nil, errors.New("days without a time, such as 22:00-06:00, after them")
	}
	return out, nil
}

func parseWindow(s string) (w Window, err error) {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return w, fmt.Errorf("%q is no window such as 22:00-06:00", s)
	}
	if w.From, err = ParseClock(from); err != nil {
		return w, err
	}
	if w.To, err = ParseClock(to); err != nil {
		return w, err
	}
	switch {
	case w.From == dayMinutes:
		return w, errors.New("a window that begins at 24:00: write 00:00, and the next day")
	case w.To == w.From:
		return w, fmt.Errorf("%q is empty: a whole day is 00:00-24:00", s)
	case w.To < w.From:
		w.To += dayMinutes
	}
	return w, nil
}
