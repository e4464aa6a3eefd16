package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"georep/internal/health"
	"georep/monitor"
	"georep/volume"
)

// exitError ends a command with a code of its own: it has said what there is to say.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// checkFlags are those of status --check.
func checkFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "check", Usage: "one line and an exit code, as monitoring plug-ins have them"},
		&cli.DurationFlag{Name: "max-lag", Usage: "with --check: a lag beyond `TIME` is CRITICAL"},
		&cli.DurationFlag{Name: "warn-lag", Usage: "with --check: a lag beyond `TIME` is a WARNING"},
	}
}

// limitsOf are the limits that the command line sets.
func limitsOf(c *cli.Context) (health.Limits, error) {
	l := health.Limits{Warn: c.Duration("warn-lag"), Max: c.Duration("max-lag")}
	switch {
	case !c.Bool("check") && (l != health.Limits{}):
		return l, usagef("--max-lag and --warn-lag go with --check")
	case l.Warn < 0 || l.Max < 0:
		return l, usagef("a lag cannot be less than 0")
	case l.Max > 0 && l.Warn > l.Max:
		return l, usagef("--warn-lag %s is more than --max-lag %s", l.Warn, l.Max)
	}
	return l, nil
}

// check is status --check. What keeps it from judging is UNKNOWN, on standard output, as everything that a plug-in says.
func (e *env) check(c *cli.Context) error {
	text, level, err := e.judge(c)
	if err != nil {
		return e.unknown(err)
	}
	fmt.Fprintln(e.out, text)
	if level == health.OK {
		return nil
	}
	return &exitError{int(level)}
}

// unknown says why nothing can be said.
func (e *env) unknown(err error) error {
	fmt.Fprintln(e.out, "GEOREP UNKNOWN - "+strings.ReplaceAll(line(err), "|", "/"))
	return &exitError{int(health.Unknown)}
}

func (e *env) judge(c *cli.Context) (string, health.Level, error) {
	limits, err := limitsOf(c)
	if err == nil && (c.Bool("watch") || c.Bool("json") || c.Bool("detail")) {
		err = usagef("--check goes with --max-lag and --warn-lag alone")
	}
	if err != nil {
		return "", health.Unknown, err
	}
	sel, err := parseSelection(c)
	if err != nil {
		return "", health.Unknown, err
	}
	sessions, err := sel.sessions()
	if err != nil && len(sessions) == 0 {
		return "", health.Unknown, err
	}
	list := checked(sel.store, sessions, limits)
	text, level := health.Plugin(list, limits)
	if err != nil && level != health.Critical { // a session that cannot be read is not known to be in order
		return "", health.Unknown, err
	}
	return text, level, nil
}

// limitless has the sessions' own objectives count.
var limitless = health.Limits{}

// checked judges sessions. One whose status cannot be read is unknown.
func checked(store *volume.Store, sessions []volume.Session, limits health.Limits) (list []health.Checked) {
	for _, s := range sessions {
		st, err := monitor.Status(store, s)
		list = append(list, health.Checked{Status: st, Verdict: health.Of(st, err, limits)})
	}
	return list
}
