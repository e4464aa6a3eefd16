package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// curve is one line of a plot. Points whose coordinates are not above 0 have no place on logarithmic axes and are left
// out.
type curve struct {
	name   string
	dashed bool // a peer
	hue    int  // curves of the same work share it
	points []point
}

type point struct{ x, y float64 }

// colours can be told apart, for the colour-blind too, on white and on black.
var colours = []string{"#1f87d6", "#d9730d", "#2a9d5c", "#b85fc6"}

// svgStyle: text and lines follow what the reader's screen is set to; a viewer that does not know of that shows a grey
// which is legible on both.
const svgStyle = `<style>
text { font: 13px sans-serif; fill: #767676 }
.title { font-size: 16px; font-weight: bold }
.axis { stroke: #767676; stroke-width: 1 }
.grid { stroke: #808080; stroke-opacity: 0.25; stroke-width: 1 }
@media (prefers-color-scheme: light) { text { fill: #24292f } .axis { stroke: #24292f } }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .axis { stroke: #e6edf3 } }
</style>
`

// canvas collects the elements of a picture.
type canvas struct {
	strings.Builder
}

func newCanvas(width, height float64, title string) *canvas {
	c := &canvas{}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, height,
		html.EscapeString(title))
	c.WriteString(svgStyle)
	c.text(width/2, 24, "middle", "title", title)
	return c
}

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(c, format+"\n", args...) }

func (c *canvas) text(x, y float64, anchor, class, text string) {
	c.add(`<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`, x, y, anchor, class, html.EscapeString(text))
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	c.add(`<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, class, x1, y1, x2, y2)
}

func (c *canvas) end() string {
	c.add("</svg>")
	return c.String()
}

// scale maps values to a stretch of a logarithmic axis, from a power of ten to another one.
type scale struct {
	low, high float64 // exponents
	from, to  float64 // coordinates
}

// newScale takes in all values above 0.
func newScale(values []float64, from, to float64) scale {
	s := scale{low: math.Inf(1), high: math.Inf(-1), from: from, to: to}
	for _, v := range values {
		if v > 0 && !math.IsInf(v, 0) {
			s.low, s.high = min(s.low, math.Floor(math.Log10(v))), max(s.high, math.Ceil(math.Log10(v)))
		}
	}
	if s.low > s.high {
		s.low, s.high = 0, 0
	}
	if s.low == s.high {
		s.high++
	}
	return s
}

func (s scale) at(v float64) float64 {
	return s.from + (math.Log10(v)-s.low)/(s.high-s.low)*(s.to-s.from)
}

// decades are the powers of ten on the axis.
func (s scale) decades() (out []float64) {
	for e := s.low; e <= s.high; e++ {
		out = append(out, math.Pow(10, e))
	}
	return out
}

// decade writes a power of ten in full.
func decade(v float64) string {
	if v >= 1 {
		return thousands(int(math.Round(v)))
	}
	return fmt.Sprintf("%.*f", int(math.Round(-math.Log10(v))), v)
}

// curvesSVG plots curves on logarithmic axes, with their names beside them.
func curvesSVG(title, xName, yName string, curves []curve) string {
	const width, height, left, right, top, bottom = 860.0, 480.0, 80.0, 610.0, 50.0, 420.0
	var xs, ys []float64
	for _, cv := range curves {
		for _, p := range cv.shown() {
			xs, ys = append(xs, p.x), append(ys, p.y)
		}
	}
	x, y := newScale(xs, left, right), newScale(ys, bottom, top)
	c := newCanvas(width, height, title)
	for _, d := range x.decades() {
		c.line("grid", x.at(d), top, x.at(d), bottom)
		c.text(x.at(d), bottom+20, "middle", "tick", decade(d))
	}
	for _, d := range y.decades() {
		c.line("grid", left, y.at(d), right, y.at(d))
		c.text(left-8, y.at(d)+4, "end", "tick", decade(d))
	}
	c.line("axis", left, bottom, right, bottom)
	c.line("axis", left, top, left, bottom)
	c.text((left+right)/2, bottom+44, "middle", "name", xName)
	c.text(left, top-8, "middle", "name", yName)
	for i, cv := range curves {
		c.curve(cv, x, y)
		c.legend(cv, right+20, top+10+float64(i)*24)
	}
	return c.end()
}

// shown are the points that have a place.
func (cv *curve) shown() (out []point) {
	for _, p := range cv.points {
		if p.x > 0 && p.y > 0 && !math.IsInf(p.x, 0) && !math.IsInf(p.y, 0) {
			out = append(out, p)
		}
	}
	return out
}

func (cv *curve) stroke() string {
	s := fmt.Sprintf(`stroke="%s" stroke-width="2" fill="none"`, colours[cv.hue%len(colours)])
	if cv.dashed {
		s += ` stroke-dasharray="6 4"`
	}
	return s
}

func (c *canvas) curve(cv curve, x, y scale) {
	var path []string
	for _, p := range cv.shown() {
		path = append(path, fmt.Sprintf("%.1f,%.1f", x.at(p.x), y.at(p.y)))
		c.add(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s</title></circle>`, x.at(p.x), y.at(p.y),
			colours[cv.hue%len(colours)], html.EscapeString(fmt.Sprintf("%s: %s, %s", cv.name, thousands(int(p.x)), number(p.y))))
	}
	if len(path) > 1 {
		c.add(`<polyline points="%s" %s/>`, strings.Join(path, " "), cv.stroke())
	}
}

func (c *canvas) legend(cv curve, x, y float64) {
	c.add(`<path d="M%.1f %.1fh28" %s/>`, x, y, cv.stroke())
	c.text(x+36, y+4, "start", "name", cv.name)
}

// barsSVG shows, for each line that has a ratio, georep's time as a part of its peer's, on a logarithmic axis with the
// peer at 1.
func barsSVG(lines []line) string {
	var shown []line
	values := []float64{0.1, 10}
	for _, l := range lines {
		if r := l.ratio(); r > 0 && !math.IsInf(r, 0) {
			shown, values = append(shown, l), append(values, r)
		}
	}
	const width, left, right, top, step = 860.0, 400.0, 780.0, 60.0, 30.0
	bottom := top + step*float64(max(len(shown), 1))
	x := newScale(values, left, right)
	c := newCanvas(width, bottom+50, "georep's time divided by its peer's (below 1 georep is faster)")
	for _, d := range x.decades() {
		c.line("grid", x.at(d), top, x.at(d), bottom)
		c.text(x.at(d), bottom+20, "middle", "tick", decade(d))
	}
	for i := range shown {
		l := &shown[i]
		y, end := top+step*float64(i), x.at(l.ratio())
		colour := colours[2]
		if l.ratio() > 1 {
			colour = colours[1]
		}
		from := x.at(1)
		c.text(left-10, y+19, "end", "name", fmt.Sprintf("%s (%s)", l.work, l.peers[0].name))
		c.add(`<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, min(from, end), y+5, math.Abs(end-from),
			step-10, colour)
		c.text(max(from, end)+8, y+19, "start", "value", fmt.Sprintf("%.2f", l.ratio()))
	}
	c.line("axis", x.at(1), top, x.at(1), bottom)
	return c.end()
}
