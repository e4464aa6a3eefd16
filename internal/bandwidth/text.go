package bandwidth

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"georep/internal/size"
	"georep/internal/timetable"
)

const (
	// Least is the smallest limit but none, in bytes a second. What is less was meant otherwise.
	Least = 1 << 10
	// Most is the greatest, in bytes a second: no link is faster, and all sums with it are far from overflowing.
	Most = 1 << 40 // 1024G
)

var errRate = errors.New("not a rate such as 500K, 1.5M or 10MB (bytes a second), or 0 for no limit")

// Parse reads a limit, as package size has it, in bytes a second. 0 and off mean none. Without a suffix the number means bytes,
// which is not what rsync takes it for; so what is less than 1K is refused, since it was probably meant otherwise. The error does
// not repeat s.
func Parse(s string) (bytesPerSecond int64, err error) {
	if strings.EqualFold(s, "off") {
		return 0, nil
	}
	n, err := size.Parse(s)
	switch {
	case err != nil:
		return 0, errRate
	case n > 0 && n < Least || n == 0 && strings.Trim(s, "0.bBiIkKmMgGtTpP") != "":
		return 0, errors.New("less than 1K, which is 1024 bytes a second; a K or M after the number may be missing")
	case n > Most:
		return 0, errors.New("more than 1024G; write 0 for no limit")
	}
	return n, nil
}

// Format is a short way to write a limit, which Parse reads as exactly the same. Whatever is not positive is 0.
func Format(bytesPerSecond int64) string { return size.Format(max(bytesPerSecond, 0)) }

// Timetable says which limit holds when: one at all times, or another from certain times of the week on.
type Timetable struct {
	moments []timetable.Moment
	rates   []int64
}

// Constant is a limit that never changes.
func Constant(bytesPerSecond int64) Timetable { return Timetable{rates: []int64{bytesPerSecond}} }

// ParseTimetable reads a limit, or times and limits as rclone has them: "08:00,2M 19:00,off", or with days
// "Mon-00:00,512K Fri-23:59,10M Sun-00:00,off"; each holds until the next one. A bare number below 1024 means K there, as
// rclone's do.
func ParseTimetable(s string) (Timetable, error) {
	if !strings.ContainsAny(s, ",:") {
		n, err := Parse(s)
		return Constant(n), err
	}
	type entry struct {
		at   timetable.Moment
		rate int64
	}
	var list []entry
	for _, word := range strings.Fields(s) {
		when, what, ok := strings.Cut(word, ",")
		if !ok {
			return Timetable{}, fmt.Errorf("%q lacks a rate, as in 08:00,2M", word)
		}
		at, err := parseMoment(when)
		if err != nil {
			return Timetable{}, err
		}
		if n, err := strconv.ParseUint(what, 10, 64); err == nil && n > 0 && n < Least {
			what += "K"
		} else if err == nil && n > 0 {
			return Timetable{}, fmt.Errorf("%q has no unit: write K or M after it, or B for bytes a second", word)
		}
		rate, err := Parse(what)
		if err != nil {
			return Timetable{}, fmt.Errorf("%q: %w", word, err)
		}
		list = append(list, entry{at, rate})
	}
	slices.SortStableFunc(list, func(a, b entry) int { return a.at.Minute - b.at.Minute })
	var out Timetable
	for _, e := range list {
		out.moments, out.rates = append(out.moments, e.at), append(out.rates, e.rate)
	}
	return out, nil
}

// parseMoment reads 08:00, Mon-08:00 or Mon-Fri-08:00.
func parseMoment(s string) (m timetable.Moment, err error) {
	m.Days = timetable.EveryDay
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		if m.Days, err = timetable.ParseDays(s[:i]); err != nil {
			return m, err
		}
		s = s[i+1:]
	}
	if m.Minute, err = timetable.ParseClock(s); err == nil && m.Minute == 24*60 {
		err = errors.New("24:00 is 00:00 of the next day")
	}
	return m, err
}

// At is the limit that holds at t, by the clock of its zone, and when that changes: zero for never.
func (t Timetable) At(now time.Time) (bytesPerSecond int64, until time.Time) {
	switch {
	case len(t.rates) == 0:
		return 0, time.Time{}
	case len(t.moments) == 0:
		return t.rates[0], time.Time{}
	}
	which, next := timetable.Latest(t.moments, now)
	return t.rates[which], next
}
