package health

import (
	"fmt"
	"strings"
	"time"

	"georep/status"
)

// Checked is a session with what was found of it.
type Checked struct {
	Status status.Status
	Verdict
}

// Plugin is the one line that a monitoring plug-in prints, and its exit code: what is wrong, worst
// first, and behind a "|" the figures. The worst session counts. The line is one that Nagios and
// its kin parse, so nothing from a session may break it: line breaks, bars and quotes are taken
// out.
func Plugin(list []Checked, limits Limits) (string, Level) {
	if len(list) == 0 {
		return "GEOREP UNKNOWN - no sessions: nothing is replicated", Unknown
	}
	worst, wrong := OK, []string{}
	var data strings.Builder
	for _, c := range list {
		worst = worse(worst, c.Level)
		name := c.Status.Master + " " + c.Status.Slave
		if c.Level != OK {
			wrong = append(wrong, name+": "+c.Why)
		}
		figures(&data, name, c.Status, limits)
	}
	text := "all " + sessions(len(list)) + " in order"
	if len(list) == 1 {
		lag, _ := list[0].Status.Lag()
		text = fmt.Sprintf("%s %s: %s, behind by %s", list[0].Status.Master, list[0].Status.Slave, list[0].Status.State, round(lag))
	}
	if len(wrong) > 0 {
		text = strings.Join(wrong, "; ")
		if len(list) > 1 {
			text = fmt.Sprintf("%d of %s: %s", len(wrong), sessions(len(list)), text)
		}
	}
	return fmt.Sprintf("GEOREP %s - %s |%s", worst, plain(text), data.String()), worst
}

// worse is the worse of two: what is known to be bad outweighs what is not known.
func worse(a, b Level) Level {
	weight := [...]int{OK: 0, Warning: 1, Unknown: 2, Critical: 3}
	if weight[b] > weight[a] {
		return b
	}
	return a
}

// sessions counts them in words.
func sessions(n int) string {
	if n == 1 {
		return "1 session"
	}
	return fmt.Sprintf("%d sessions", n)
}

// figures are a session's, as 'label'=value[unit];warn;crit;min. A lag that is not known is left out.
func figures(b *strings.Builder, name string, s status.Status, limits Limits) {
	put := func(what, value string) { fmt.Fprintf(b, " '%s %s'=%s", label(name), what, value) }
	if lag, known := s.Lag(); known {
		put("lag", fmt.Sprintf("%.3fs;%s;%s;0", lag.Seconds(), seconds(limits.Warn), seconds(limits.Max)))
	}
	put("pending", fmt.Sprintf("%dB;;;0", s.Pending.Bytes))
	put("failures", fmt.Sprintf("%d;0;;0", s.FailuresTotal))
}

// seconds is a threshold as plug-ins write it; "" for none.
func seconds(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%g", d.Seconds())
}

// label is a name that needs no quoting within quotes.
func label(s string) string {
	return strings.NewReplacer("'", "_", "=", "_", "|", "_").Replace(status.Printable(s))
}

// plain keeps text from ending before the figures.
func plain(s string) string { return strings.ReplaceAll(status.Printable(s), "|", "/") }
