package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// report is all that a run has to say.
type report struct {
	cfg    config
	about  machine
	lines  []line
	tables []table
	curves []curve
	failed []string
	// recorded are the ratios of an earlier run, to be shown beside these; nil: none are.
	recorded recorded
}

func newReport(c config) *report { return &report{cfg: c, about: thisMachine()} }

// line is one line of the table: georep, its peers, and the goal. Smaller values are better. The ratio is georep's median
// to that of the first peer.
type line struct {
	work  string
	ours  series
	peers []series
	unit  string // "s", "ms" or "MiB"
	goal  goal
	note  string // below the table
}

// goal is what a line should achieve, in words and as a check; the zero value is none.
type goal struct {
	text string
	met  func(l *line) bool
}

// ratioGoal: at most max times the first peer.
func ratioGoal(max float64) goal {
	return goal{fmt.Sprintf("≤ %v × rsync", max), func(l *line) bool { return l.ratio() <= max }}
}

// valueGoal: at most max, in the line's unit.
func valueGoal(text string, max float64) goal {
	return goal{text, func(l *line) bool { return l.ours.mid() <= max }}
}

// ratio is NaN where one of both has no value.
func (l *line) ratio() float64 {
	if len(l.peers) == 0 {
		return math.NaN()
	}
	return l.ours.mid() / l.peers[0].mid()
}

// verdict says whether the goal is met.
func (l *line) verdict() string {
	switch {
	case l.goal.met == nil:
		return ""
	case l.goal.met(l):
		return "yes"
	}
	return "no"
}

// table is one of the further tables: the first row has the headings.
type table struct {
	title string
	rows  [][]string
	note  string
}

// markdown is the whole report.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("# georep beside its peers\n\n")
	fmt.Fprintf(&b, "%s\n\n", r.about)
	fmt.Fprintf(&b, "Medians of %d rounds after %d that did not count (lowest to highest in brackets), in turn, in one run, "+
		"on the same trees, over the same sshd on loopback; the WAN is a proxy with a round trip of %v and 1 Gbit/s. "+
		"The ratio is to the first peer.\n", r.cfg.runs, r.cfg.warmup, r.cfg.rtt)
	if r.cfg.scale != 1 {
		fmt.Fprintf(&b, "\n**At scale %v: the goals are for scale 1, and these numbers say nothing about them.**\n",
			r.cfg.scale)
	}
	if len(r.lines) > 0 {
		writeRows(&b, r.lineRows())
		for i := range r.lines {
			if r.lines[i].note != "" {
				fmt.Fprintf(&b, "\n- %s: %s", r.lines[i].work, r.lines[i].note)
			}
		}
		b.WriteString("\n")
	}
	for _, w := range r.recorded.warnings(r) {
		fmt.Fprintf(&b, "\nWorse than recorded: %s\n", w)
	}
	for _, t := range r.tables {
		fmt.Fprintf(&b, "\n## %s\n", t.title)
		writeRows(&b, t.rows)
		if t.note != "" {
			fmt.Fprintf(&b, "\n%s\n", t.note)
		}
	}
	for _, f := range r.failed {
		fmt.Fprintf(&b, "\nFAILED: %s\n", f)
	}
	return b.String()
}

// lineRows are the rows of the table of lines, its head first.
func (r *report) lineRows() [][]string {
	head := []string{"work", "georep", "peers", "ratio", "goal", "met"}
	if r.recorded != nil {
		head = []string{"work", "georep", "peers", "ratio", "recorded", "change", "goal", "met"}
	}
	rows := [][]string{head}
	for i := range r.lines {
		cells := r.lines[i].cells()
		if r.recorded != nil {
			cells = slices.Insert(cells, 4, r.recorded.cells(&r.lines[i])...)
		}
		rows = append(rows, cells)
	}
	return rows
}

// writeRows writes a table in Markdown.
func writeRows(b *strings.Builder, rows [][]string) {
	b.WriteString("\n")
	for i, row := range rows {
		cells := make([]string, len(row))
		for k, c := range row {
			cells[k] = strings.NewReplacer("|", "\\|", "\n", " ").Replace(c)
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
}

func (l *line) cells() []string {
	var peers []string
	for i := range l.peers {
		peers = append(peers, l.peers[i].name+" "+l.cell(&l.peers[i]))
	}
	ratio := ""
	if r := l.ratio(); !math.IsNaN(r) {
		ratio = fmt.Sprintf("%.2f", r)
	}
	return []string{l.work, l.cell(&l.ours), strings.Join(peers, "<br>"), ratio, l.goal.text, l.verdict()}
}

// cell has the median, the range, and the bytes on the wire.
func (l *line) cell(s *series) string {
	if !s.ok() {
		if s.state == "" {
			return "nothing measured"
		}
		return s.state
	}
	text := quantity(s.mid(), l.unit)
	if len(s.values) > 1 {
		text += fmt.Sprintf(" (%s–%s)", number(quantile(s.values, 0)), number(quantile(s.values, 1)))
	}
	if w := median(s.wire); w > 0 {
		text += ", " + megabytes(w)
	}
	return text
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func quantity(v float64, unit string) string {
	if math.IsNaN(v) {
		return number(v)
	}
	return number(v) + " " + unit
}

// megabytes is for bytes on the wire, in units of 1000.
func megabytes(bytes float64) string {
	if bytes < 1e6 {
		return number(bytes/1e3) + " kB sent"
	}
	return number(bytes/1e6) + " MB sent"
}

// thousands writes 1000000 as 1,000,000.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes in units of 1024, without a fraction where there is none.
func size(n int) string {
	for _, u := range []struct {
		unit string
		size int
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.size)), ".0") + " " + u.unit
		}
	}
	return fmt.Sprintf("%d B", n)
}
