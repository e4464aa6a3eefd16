package web

import (
	"fmt"
	"math"
	"strings"
	"time"

	"georep/internal/history"
	"georep/status"
)

// chartHeight is the height of a chart in its own coordinates; a slot is 1 wide. The browser stretches both.
const chartHeight = 100

// chart is what the page draws. The lines are the d of SVG paths.
type chart struct {
	Title, Unit string
	Now, Peak   string // the latest and the greatest value, for people
	Slots       int
	Avg, Area   string // a line through the averages, and the area below it
	Max         string // a line through the greatest
	Top, Middle string // labels of the axis; the bottom is 0
	From, To    string // of the time
	Empty       bool
	Summary     string // for those who cannot see it
}

// drawing says how a series is drawn.
type drawing struct {
	title  string
	series history.Series
	show   func(float64) string
	top    func(float64) float64 // the end of the axis, for the greatest value
}

var drawings = []drawing{
	{"Lag", history.Lag, seconds, niceSeconds},
	{"Throughput", history.Rate, func(v float64) string { return status.Bytes(int64(v)) + "/s" }, niceBytes},
	{"Pending", history.Pending, func(v float64) string { return status.Bytes(int64(v)) }, niceBytes},
}

// drawAll draws the charts of a span.
func drawAll(points []history.Point, span string) (out []chart) {
	for _, d := range drawings {
		out = append(out, d.draw(points, span))
	}
	return out
}

func (d *drawing) draw(points []history.Point, span string) chart {
	c := chart{Title: d.title, Slots: max(len(points)-1, 1), Empty: true}
	peak := 0.0
	for i := range points {
		if v := points[i].Max[d.series]; !math.IsNaN(v) {
			peak, c.Empty = max(peak, v), false
			c.Now = d.show(points[i].Avg[d.series])
		}
	}
	if n := len(points); n > 0 && math.IsNaN(points[n-1].Avg[d.series]) && (n < 2 || math.IsNaN(points[n-2].Avg[d.series])) {
		c.Now = ""
	}
	top := d.top(peak)
	c.Peak, c.Top, c.Middle = d.show(peak), d.show(top), d.show(top/2)
	avg := func(i int) float64 { return points[i].Avg[d.series] }
	c.Avg = line(len(points), avg, top)
	c.Area = area(len(points), avg, top)
	c.Max = line(len(points), func(i int) float64 { return points[i].Max[d.series] }, top)
	if n := len(points); n > 0 {
		c.From, c.To = clock(points[0].Time, span), "now"
	}
	c.Summary = fmt.Sprintf("%s over the last %s: at most %s", d.title, span, c.Peak)
	return c
}

// clock is a time at the chart's edge.
func clock(t time.Time, span string) string {
	switch span {
	case "week":
		return t.Local().Format("Mon 2 Jan")
	case "day":
		return t.Local().Format("Mon 15:04")
	}
	return t.Local().Format("15:04")
}

// y is where a value lies; above the top it is cut off.
func y(v, top float64) float64 { return chartHeight - chartHeight*min(v/top, 1) }

// line goes through the values that are known, with a gap for those that are not.
func line(n int, value func(int) float64, top float64) string {
	var b strings.Builder
	pen := false
	for i := range n {
		v := value(i)
		if math.IsNaN(v) {
			pen = false
			continue
		}
		if !pen {
			fmt.Fprintf(&b, "M%d %.1fh.3", i, y(v, top)) // a dot, where nothing follows
			pen = true
			continue
		}
		fmt.Fprintf(&b, "L%d %.1f", i, y(v, top))
	}
	return b.String()
}

// area is the same, down to the bottom.
func area(n int, value func(int) float64, top float64) string {
	var b strings.Builder
	for i := 0; i < n; i++ {
		if math.IsNaN(value(i)) {
			continue
		}
		fmt.Fprintf(&b, "M%d %d", i, chartHeight)
		for ; i < n && !math.IsNaN(value(i)); i++ {
			fmt.Fprintf(&b, "L%d %.1f", i, y(value(i), top))
		}
		fmt.Fprintf(&b, "L%d %dZ", i-1, chartHeight)
	}
	return b.String()
}

// niceSeconds is the least of the lengths that people think in that is no less.
func niceSeconds(v float64) float64 {
	for _, s := range []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400} {
		if v <= s {
			return s
		}
	}
	return math.Ceil(v/(7*86400)) * 7 * 86400
}

// niceBytes is a round number of some unit.
func niceBytes(v float64) float64 {
	unit := 1024.0
	for v > unit*1024 {
		unit *= 1024
	}
	for _, n := range []float64{1, 2, 4, 10, 20, 40, 100, 200, 400} {
		if v <= n*unit {
			return n * unit
		}
	}
	return 1024 * unit
}

// seconds is a length of time for people, short.
func seconds(v float64) string {
	switch d := time.Duration(v * float64(time.Second)); {
	case v == 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d.Milliseconds(), 1))
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d < 2*time.Hour:
		return fmt.Sprintf("%.0f min", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.1f h", d.Hours())
	default:
		return fmt.Sprintf("%.1f days", d.Hours()/24)
	}
}

// spark is a small line of the latest lags: the d of a path, of height 20.
func spark(lags []float64) string {
	top := 5.0 // below that all is flat: nobody minds
	for _, v := range lags {
		if !math.IsNaN(v) {
			top = max(top, v)
		}
	}
	var b strings.Builder
	pen := false
	for i, v := range lags {
		if math.IsNaN(v) {
			pen = false
			continue
		}
		word := "L"
		if !pen {
			word, pen = "M", true
		}
		fmt.Fprintf(&b, "%s%d %.1f", word, i, 19-18*v/top)
	}
	return b.String()
}
