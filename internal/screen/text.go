package screen

import (
	"strings"
	"unicode"

	"georep/internal/health"
)

// Colours, as a terminal wants them.
const (
	bold = "1"
	dim  = "2"
	blue = "34"
)

var colours = map[health.Level]string{health.OK: "32", health.Warning: "33", health.Critical: "31", health.Unknown: "35"}

// paint colours a text where there are colours.
func (v View) paint(colour, s string) string {
	if !v.Colour || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// strip takes colours out again.
func strip(s string) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "\x1b[")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, s, _ = strings.Cut(rest, "m")
	}
}

// wide are the characters that take two columns, by and large.
var wide = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x1100, Hi: 0x115f, Stride: 1}, {Lo: 0x2e80, Hi: 0xa4cf, Stride: 1},
	{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, {Lo: 0xf900, Hi: 0xfaff, Stride: 1}, {Lo: 0xfe30, Hi: 0xfe6f, Stride: 1}, {Lo: 0xff00, Hi: 0xff60, Stride: 1},
	{Lo: 0xffe0, Hi: 0xffe6, Stride: 1}}, R32: []unicode.Range32{{Lo: 0x1f300, Hi: 0x1faff, Stride: 1}, {Lo: 0x20000, Hi: 0x3fffd, Stride: 1}}}

func columnsOf(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// width is how many columns a text takes.
func width(s string) (n int) {
	for _, r := range s {
		n += columnsOf(r)
	}
	return n
}

// fit cuts a text off at a width.
func fit(s string, most int) string {
	n := 0
	for i, r := range s {
		if n += columnsOf(r); n > most {
			return s[:i]
		}
	}
	return s
}

// shorten is fit that shows that something is missing.
func (v View) shorten(s string, most int) string {
	if width(s) <= most {
		return s
	}
	end := "..."
	if v.Unicode {
		end = "…"
	}
	return fit(fit(s, max(most-width(end), 0))+end, most)
}

// middle shortens a text in its middle: the ends of two names tell more apart than their beginnings.
func (v View) middle(s string, most int) string {
	end := most * 2 / 5
	if width(s) <= most || end == 0 {
		return v.shorten(s, most)
	}
	tail := []rune(s)
	for n := 0; len(tail) > 0; {
		if n += columnsOf(tail[len(tail)-1]); n > end {
			break
		}
		tail = tail[:len(tail)-1]
	}
	rest := strings.TrimPrefix(s, string(tail))
	return v.shorten(string(tail), most-width(rest)) + rest
}

// pad fills a text up to a width, and left puts it at its end.
func pad(s string, to int) string { return s + strings.Repeat(" ", max(0, to-width(strip(s)))) }

func left(s string, to int) string { return strings.Repeat(" ", max(0, to-width(strip(s)))) + s }
