// Package screen draws how the sessions stand on a terminal, again and again: status --watch. It does no I/O: it makes the text of
// a screen of a given size, of which no line is too long.
package screen

import (
	"fmt"
	"strings"
	"time"

	"georep/internal/health"
	"georep/status"
)

// What takes a terminal over, and gives it back: another screen, without the cursor and without wrapping of lines.
const (
	Enter = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	Leave = "\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// View is what is drawn on.
type View struct {
	Host          string
	Now           time.Time
	Width, Height int
	Colour        bool
	Unicode       bool   // else ASCII alone
	Trouble       string // why sessions are missing; "" where none is
}

// Columns of the small chart, and how long each of them is.
const (
	sparkColumns = 10
	sparkStep    = 6 * time.Second
)

// Widths of the columns beside the name.
const (
	stateWidth   = 9
	lagWidth     = 8
	rateWidth    = 11
	pendingWidth = 10
	goodName     = 34 // what a name should have
)

// Screen remembers the latest lags between two drawings. It is for one goroutine.
type Screen struct {
	lags map[string][]point // by session
}

// point is the greatest lag of a step.
type point struct {
	step  int64
	lag   time.Duration
	known bool
}

// Draw gives what to write: a whole screen, with those in trouble first.
func (s *Screen) Draw(list []health.Checked, v View) string {
	v.Width, v.Height = max(v.Width, 20), max(v.Height, 4)
	rows := make([]*health.Checked, len(list))
	for i := range list {
		rows[i] = &list[i]
	}
	health.Sort(rows, func(c *health.Checked) (*status.Status, *health.Verdict) { return &c.Status, &c.Verdict })
	s.note(rows, v.Now)
	c := layout(v)
	trouble := v.paint(colours[health.Critical], v.shorten(status.Printable(v.Trouble), v.Width))
	lines := []string{v.title(rows), trouble, c.header()}
	body := v.Height - len(lines) - 1 // the last one is for what has no room
	var shown int
	for _, r := range rows {
		next := c.row(r, s.lags[key(&r.Status)])
		if len(next) > body {
			break
		}
		lines, body, shown = append(lines, next...), body-len(next), shown+1
	}
	if more := len(rows) - shown; more > 0 {
		lines = append(lines, v.paint(dim, fit(fmt.Sprintf("  ... and %d more: enlarge the window, or name a master", more), v.Width)))
	}
	if len(rows) == 0 {
		lines = append(lines[:2], "no sessions")
	}
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

func key(s *status.Status) string { return s.Master + "\x00" + s.Slave }

// note takes the lags in.
func (s *Screen) note(rows []*health.Checked, now time.Time) {
	before := s.lags
	s.lags = map[string][]point{}
	step := now.Unix() / int64(sparkStep/time.Second)
	for _, r := range rows {
		list := before[key(&r.Status)]
		lag, known := r.Status.Lag()
		if n := len(list); n > 0 && list[n-1].step == step {
			if known {
				list[n-1].lag, list[n-1].known = max(list[n-1].lag, lag), true
			}
		} else {
			list = append(list, point{step, lag, known})
		}
		if n := len(list); n > sparkColumns {
			list = list[n-sparkColumns:]
		}
		s.lags[key(&r.Status)] = list
	}
}

// title says how all stand.
func (v View) title(rows []*health.Checked) string {
	of := map[health.Level]int{}
	for _, r := range rows {
		of[r.Level]++
	}
	clock := v.Now.Local().Format("15:04:05")
	var parts []string
	for _, c := range health.Counts(of) {
		parts = append(parts, v.paint(colours[c.Level], c.Text))
	}
	plain := fmt.Sprintf("georep on %s  ", status.Printable(v.Host))
	counts := strings.Join(parts, ", ")
	room := v.Width - width(plain) - width(strip(counts)) - len(clock)
	if room < 1 {
		return fit(strip(counts), v.Width)
	}
	return v.paint(bold, plain) + counts + strings.Repeat(" ", room) + v.paint(dim, clock)
}

// columns is how a line is divided. What the window has no room for is left out, the least important first.
type columns struct {
	v                    View
	name                 int
	spark, rate, pending bool
}

func layout(v View) columns {
	c := columns{v: v, spark: true, rate: true, pending: true}
	for _, drop := range []*bool{nil, &c.pending, &c.spark, &c.rate} {
		if drop != nil {
			*drop = false
		}
		c.name = v.Width - 2 - 1 - stateWidth - 1 - lagWidth
		if c.spark {
			c.name -= sparkColumns + 2
		}
		if c.rate {
			c.name -= rateWidth + 1
		}
		if c.pending {
			c.name -= pendingWidth + 1
		}
		if c.name >= goodName {
			return c
		}
	}
	c.name = max(c.name, 0)
	return c
}

func (c *columns) header() string {
	return c.v.paint(dim, fit(c.line("  "+pad("SESSION", c.name), pad("STATE", stateWidth), "LAG", pad("for 1 min", sparkColumns), "RATE", "PENDING"), c.v.Width))
}

// line puts cells side by side.
func (c *columns) line(name, state, lag, spark, rate, pending string) string {
	out := name + " " + state + " " + left(lag, lagWidth)
	if c.spark {
		out += "  " + spark
	}
	if c.rate {
		out += " " + left(rate, rateWidth)
	}
	if c.pending {
		out += " " + left(pending, pendingWidth)
	}
	return out
}

// row is a session: a line, and a second one where there is something to say.
func (c *columns) row(r *health.Checked, lags []point) []string {
	st := &r.Status
	arrow, mark := " -> ", map[health.Level]string{health.OK: " ", health.Warning: "!", health.Critical: "X", health.Unknown: "?"}[r.Level]
	if c.v.Unicode {
		arrow, mark = " → ", map[health.Level]string{health.OK: "●", health.Warning: "▲", health.Critical: "■", health.Unknown: "?"}[r.Level]
	}
	colour := colours[r.Level]
	name := pad(c.v.middle(status.Printable(st.Master)+arrow+status.Printable(st.Slave), c.name), c.name)
	line := c.line(c.v.paint(colour, mark)+" "+name, c.v.paint(colour, pad(fit(state(st), stateWidth), stateWidth)), lagText(st),
		c.v.paint(blue, c.sparkline(lags)), rateText(st), pendingText(st))
	if width(strip(line)) > c.v.Width {
		line = fit(strip(line), c.v.Width)
	}
	out := []string{line}
	why := r.Why
	if wait := st.WaitsFor(); why == "" {
		why = wait
	}
	why = strings.TrimPrefix(why, string(st.State)+": ")
	if why != "" && why != string(st.State) {
		out = append(out, c.v.paint(colour, c.v.shorten("    "+status.Printable(why), c.v.Width)))
	}
	return out
}

func state(st *status.Status) string {
	if st.State == status.Initializing {
		return "Starting"
	}
	return string(st.State)
}

func lagText(st *status.Status) string {
	lag, known := st.Lag()
	switch {
	case !known:
		return "-"
	case lag < time.Second:
		return fmt.Sprintf("%d ms", lag.Milliseconds())
	case lag < 2*time.Minute:
		return fmt.Sprintf("%.0f s", lag.Seconds())
	case lag < 2*time.Hour:
		return fmt.Sprintf("%.0f min", lag.Minutes())
	case lag < 48*time.Hour:
		return fmt.Sprintf("%.0f h", lag.Hours())
	}
	return fmt.Sprintf("%.0f d", lag.Hours()/24)
}

func rateText(st *status.Status) string {
	if st.Rates.BytesContent <= 0 {
		return "-"
	}
	return status.Bytes(int64(st.Rates.BytesContent)) + "/s"
}

func pendingText(st *status.Status) string {
	switch {
	case st.Pending.Bytes > 0:
		return status.Bytes(st.Pending.Bytes)
	case st.Pending.Entries > 0:
		return fmt.Sprintf("%d", st.Pending.Entries)
	}
	return "-"
}

// sparkline is a column for each step, the latest at the right.
func (c *columns) sparkline(lags []point) string {
	bars := []rune(" .:-=+*#")
	if c.v.Unicode {
		bars = []rune("▁▂▃▄▅▆▇█")
	}
	top := 5 * time.Second // below that all is flat: nobody minds
	for _, p := range lags {
		top = max(top, p.lag)
	}
	out := []rune(strings.Repeat(" ", sparkColumns))
	for i, p := range lags {
		if at := sparkColumns - len(lags) + i; p.known && at >= 0 {
			out[at] = bars[min(max(int(float64(p.lag)/float64(top)*float64(len(bars)-1)), 0), len(bars)-1)]
		}
	}
	return string(out)
}
