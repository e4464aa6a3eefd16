package status

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// WriteJSON writes the list as an indented array, [] where it is empty.
func WriteJSON(w io.Writer, list []Status) error {
	if list == nil {
		list = []Status{}
	}
	enc := json.NewEncoder(JSONWriter{w})
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(list)
}

// WriteTable writes the list for people, in GlusterFS's columns. With detail there are more columns and, below the
// table, the reasons and the failures of each session. Whatever a name or message holds, no control character comes out.
func WriteTable(w io.Writer, list []Status, detail bool) error {
	rows := [][]string{{"MASTER", "SLAVE", "STATUS", "CRAWL STATUS", "LAST_SYNCED"}}
	if detail {
		rows[0] = append(rows[0], "LAG", "ENTRY", "DATA", "META", "FAILURES", "CHECKPOINT TIME", "CHECKPOINT COMPLETED",
			"CHECKPOINT COMPLETION TIME")
	}
	for _, s := range list {
		row := []string{Printable(s.Master), Printable(s.Slave), string(s.State), s.crawl(), when(s.LastSynced)}
		if detail {
			row = append(row, s.lag(), count(s.Pending.Entries), data(s.Pending), count(s.Pending.Meta),
				strconv.Itoa(s.FailuresTotal))
			row = append(row, s.checkpoint()...)
		}
		rows = append(rows, row)
	}
	var b strings.Builder
	align(&b, rows)
	if detail {
		for _, s := range list {
			s.writeDetail(&b)
		}
	} else {
		b.WriteString(trouble(list))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// align writes rows in columns two spaces apart, with a rule below the first, as gluster's command line does.
func align(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	total := -2
	for i := range width {
		for _, r := range rows {
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
		}
		total += width[i] + 2
	}
	for n, r := range rows {
		line := ""
		for i, cell := range r {
			line += cell + strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
		if n == 0 {
			b.WriteString(strings.Repeat("-", total) + "\n")
		}
	}
}

// trouble says in one line where there is more to see than the columns have room for; "" where there is nothing.
func trouble(list []Status) string {
	faulty, held, stepped := 0, 0, 0
	for _, s := range list {
		held += s.FailuresTotal
		if s.State == Faulty {
			faulty++
		}
		if s.ClockStep != nil {
			stepped++
		}
	}
	var what []string
	if faulty > 0 {
		what = append(what, plural(faulty, "session is Faulty", "sessions are Faulty"))
	}
	if held > 0 {
		what = append(what, plural(held, "entry is held back", "entries are held back"))
	}
	if stepped > 0 {
		what = append(what, "the clock of this host was set")
	}
	if len(what) == 0 {
		return ""
	}
	return "\n" + strings.Join(what, ", ") + ": georep status --detail says why\n"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// writeDetail says how fast the session goes, or why it does not go on, and what is held back.
func (s Status) writeDetail(b *strings.Builder) {
	pace := s.pace()
	if s.Reason == "" && len(s.Failures)+len(s.Waiting)+len(s.Unmarked) == 0 && pace == "" && s.NotKept == "" && s.MarkerWaits == "" &&
		s.HiddenWriters == "" && s.Confined == "" && s.Filter == "" && s.Marker == "" && s.Objective == "" && len(s.Checkpoints) < 2 &&
		s.ClockStep == nil {
		return
	}
	fmt.Fprintf(b, "\n%s -> %s\n", Printable(s.Master), Printable(s.Slave))
	if pace != "" {
		fmt.Fprintf(b, "  %s\n", pace)
	}
	if s.Reason != "" {
		fmt.Fprintf(b, "  %s since %s: %s\n", Printable(string(s.State)), when(s.StateSince), Printable(s.Reason))
	}
	if s.Marker != "" {
		fmt.Fprintf(b, "  changes are learnt from: %s\n", Printable(s.Marker))
	}
	if s.Objective != "" {
		fmt.Fprintf(b, "  objective: %s since %s (max-lag %s)\n", s.Objective, when(s.ObjectiveSince),
			time.Duration(s.ObjectiveSeconds*float64(time.Second)))
	}
	if len(s.Checkpoints) > 1 {
		for _, c := range s.Checkpoints {
			fmt.Fprintf(b, "  checkpoint %s: %s, completed: %s, at %s\n", Printable(c.Name), when(c.Time), c.yesNo(), when(c.CompletedAt))
		}
	}
	if s.NotKept != "" {
		fmt.Fprintf(b, "  the slave's files cannot keep: %s\n", Printable(s.NotKept))
	}
	if s.Filter != "" {
		fmt.Fprintf(b, "  filter: %s\n", Printable(s.Filter))
	}
	if s.Confined != "" {
		fmt.Fprintf(b, "  confined: %s\n", Printable(s.Confined))
	}
	if s.HiddenWriters != "" {
		fmt.Fprintf(b, "  %s: what these write by libaio, a loop device or a mapping arrives when they close the file\n",
			Printable(s.HiddenWriters))
	}
	for _, f := range s.Failures {
		fmt.Fprintf(b, "  held back: %q  %s: %s  (since %s)\n", f.Path, Printable(f.Op), Printable(f.Error), when(f.Since))
	}
	for _, w := range s.Waiting {
		why := "keeps changing"
		if w.Large {
			why = "on its way"
		}
		fmt.Fprintf(b, "  %s: %q  (the slave lacks its changes since %s)\n", why, w.Path, when(w.Since))
	}
	if more := s.WaitingTotal - len(s.Waiting); more > 0 {
		fmt.Fprintf(b, "  ... and %d more that keep changing or are on their way\n", more)
	}
	if more := s.FailuresTotal - len(s.Failures); more > 0 {
		fmt.Fprintf(b, "  ... and %d more\n", more)
	}
	if s.ClockStep != nil {
		fmt.Fprintf(b, "  %s\n", s.ClockStep)
	}
	if s.MarkerWaits != "" {
		fmt.Fprintf(b, "  the marker: %s\n", Printable(s.MarkerWaits))
	}
	for _, line := range s.Unmarked {
		fmt.Fprintf(b, "  takes no mark, compared by ctime: %s\n", Printable(line))
	}
}

// pace has the rates and, in a first sync, the time that is left; "" where nothing goes on.
func (s Status) pace() string {
	var parts []string
	if s.Rates != (Rates{}) {
		parts = append(parts, fmt.Sprintf("%.1f files/s, %s/s of content, %s/s on the wire", s.Rates.Files,
			Bytes(int64(s.Rates.BytesContent)), Bytes(int64(s.Rates.BytesWire))))
	}
	if eta := ETA(s.ETASeconds); eta != "" {
		parts = append(parts, eta)
	}
	return strings.Join(parts, ", ")
}

// ETA writes the time that is left, such as "ETA 1h2m3s", for people; "" where it is not known.
func ETA(seconds float64) string {
	const longest = 365 * 24 * 3600 // beyond which it says nothing, and a Duration may not hold it
	if !(seconds > 0 && seconds < longest) {
		return ""
	}
	return "ETA " + max(time.Second, time.Duration(seconds*float64(time.Second)).Round(time.Second)).String()
}

// Lag is how old the oldest change is that the slave lacks. It is not known of a session that was never in step.
func (s Status) Lag() (d time.Duration, known bool) {
	if s.LastSynced.IsZero() {
		return 0, false
	}
	return time.Duration(s.LagSeconds * float64(time.Second)), true
}

// lag is a duration for people; in step it is 0s, and where nothing is known N/A.
func (s Status) lag() string {
	d, known := s.Lag()
	if !known {
		return "N/A"
	}
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	return d.String()
}

// checkpoint has the newest one: its time, whether it is complete, and when that was seen.
func (s Status) checkpoint() []string {
	if len(s.Checkpoints) == 0 {
		return []string{"N/A", "N/A", "N/A"}
	}
	c := s.Checkpoints[len(s.Checkpoints)-1]
	return []string{when(c.Time), c.yesNo(), when(c.CompletedAt)}
}

func (c Checkpoint) yesNo() string {
	switch {
	case c.Unseen:
		return "Yes, but for hidden writers"
	case c.Completed:
		return "Yes"
	}
	return "No"
}

// data is what is to be sent: files, and their bytes.
func data(p Pending) string {
	if p.Files == 0 {
		return "0"
	}
	return count(p.Files) + " (" + Bytes(p.Bytes) + ")"
}

// WaitsFor says which window a session waits for; "" where it waits for none.
func (s Status) WaitsFor() string {
	if s.WaitsUntil.IsZero() {
		return ""
	}
	return "waits for its window until " + s.WaitsUntil.Local().Format("Mon 2 Jan 15:04 MST")
}

// crawl is how changes are found, or what the session waits for.
func (s Status) crawl() string {
	if s.WaitsUntil.IsZero() {
		return string(s.Crawl)
	}
	return "until " + s.WaitsUntil.Local().Format("Mon 15:04")
}

func count(n int64) string { return strconv.FormatInt(n, 10) }

// Bytes writes a size for people, such as 1.5 MiB.
func Bytes(n int64) string {
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 6 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, "?KMGTPE"[unit])
}

// when shows a time in the zone of who reads it, and names that.
func when(t Time) string {
	if t.IsZero() {
		return "N/A"
	}
	return t.Local().Format(time.DateTime + " MST")
}

// Printable returns s with everything that a terminal could take for a command, and what is not UTF-8, escaped as in a
// Go string.
func Printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || !strconv.IsPrint(r) {
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}
