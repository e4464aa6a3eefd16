package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"georep/marker"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

const (
	// exitTimeout is wait's where --timeout passed, as that of timeout(1).
	exitTimeout = 124
	// exitUnseen is wait's where the slave has all that georep can see, and there may be more.
	exitUnseen = 3
	// waitPoll is how often wait looks at the session's files.
	waitPoll = 100 * time.Millisecond
)

func (e *env) waitCommand() *cli.Command {
	return &cli.Command{Name: "wait", ArgsUsage: "MASTER [SLAVE]", Action: e.wait,
		Usage: "wait until the slave durably has everything that the master had",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "checkpoint", Usage: "that the master had at the checkpoint `NAME`"},
			&cli.StringFlag{Name: "until", Usage: "that it had at `TIME`: 2026-11-30T21:00:00Z, or \"2026-11-30 21:00:00\" of this host"},
			&cli.DurationFlag{Name: "timeout", Usage: "wait no longer than `DURATION`, and exit with 124 then; 0: as long as it takes"},
			&cli.BoolFlag{Name: "ignore-hidden-writers", Usage: "succeed also if georep may not see who holds some files open"},
		}}
}

// waiting is one wait.
type waiting struct {
	e       *env
	r       *registration
	name    string // of the checkpoint; "" for none
	at      time.Time
	ignore  bool // hidden writers
	show    *progress
	said    string // the kind of reason that was said last
	reached bool
	unseen  bool // it was reached but for what hidden writers wrote
}

// wait ends well only where the slave has everything up to the moment: LAST_SYNCED is later, which no entry that is held back, or
// waits, or is not marked, lets pass.
func (e *env) wait(c *cli.Context) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	w := &waiting{e: e, r: r, ignore: c.Bool("ignore-hidden-writers"), show: newProgress(e.err)}
	if err := w.aim(c); err != nil {
		return err
	}
	ctx, cancel := c.Context, func() {}
	if d := c.Duration("timeout"); d < 0 {
		return usagef("--timeout cannot be less than 0")
	} else if d > 0 {
		ctx, cancel = context.WithTimeout(ctx, d)
	}
	defer cancel()
	err = w.run(ctx)
	w.show.clear()
	switch {
	case err == nil && w.unseen && !w.ignore:
		fmt.Fprintln(e.err, "georep: the slave has all that georep can see; it may not see who holds some files open, and what is written "+
			"to those by libaio, a loop device or a mapping may be missing (status --detail; --ignore-hidden-writers)")
		return &exitError{exitUnseen}
	case err == nil:
		_, err := fmt.Fprintf(e.out, "the slave has everything that the master had at %s\n", w.at.Local().Format(timeFormat))
		return err
	case errors.Is(err, context.DeadlineExceeded) && c.Context.Err() == nil:
		fmt.Fprintf(e.err, "georep: after %s the slave does not have everything that the master had at %s\n", c.Duration("timeout"),
			w.at.Local().Format(timeFormat))
		return &exitError{exitTimeout}
	}
	return err
}

// aim finds out what to wait for.
func (w *waiting) aim(c *cli.Context) error {
	switch {
	case c.IsSet("checkpoint") && c.IsSet("until"):
		return usagef("--checkpoint and --until exclude each other")
	case c.IsSet("checkpoint"):
		w.name = c.String("checkpoint")
		one, err := w.checkpoint()
		if err != nil {
			return err
		}
		w.take(&one)
	case c.IsSet("until"):
		at, err := parseMoment(c.String("until"))
		if err != nil {
			return err
		}
		w.at = at
	default:
		w.at = time.Now().Round(0)
	}
	return nil
}

// parseMoment reads a time with its zone, or one of this host's.
func parseMoment(text string) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("--until cannot be %q: it is a time such as 2026-11-30T21:00:00Z or \"2026-11-30 21:00:00\"", text)
}

func (w *waiting) take(one *volume.Checkpoint) {
	w.at, w.reached, w.unseen = one.Time, !one.Completed.IsZero(), one.Unseen
}

func (w *waiting) checkpoint() (volume.Checkpoint, error) {
	files := w.r.files()
	list, err := files.Checkpoints()
	at := slices.IndexFunc(list, func(c volume.Checkpoint) bool { return c.Name == w.name })
	switch {
	case err != nil:
		return volume.Checkpoint{}, err
	case at >= 0:
		return list[at], nil
	}
	return volume.Checkpoint{}, fmt.Errorf("%w: %q; set it with georep checkpoint --name, see them with --list", volume.ErrNoCheckpoint, w.name)
}

// run waits. A session that is not running is none to wait for, unless its service is to bring it back.
func (w *waiting) run(ctx context.Context) error {
	stop := w.hurry(ctx)
	defer stop()
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for {
		if w.reached {
			return nil
		}
		st, err := monitor.Status(w.r.store, w.r.session)
		if err != nil {
			return err
		}
		if st.LastSynced.After(w.at) {
			w.unseen = !st.Has(w.at)
			return nil
		}
		s, err := w.r.store.Session(w.r.session.Master, w.r.session.Slave)
		if err != nil {
			return err
		}
		if _, running := status.Running(w.r.files().Pid); !running && !s.Started {
			return fmt.Errorf("%w, and LAST_SYNCED is before that: go on with georep start %s %s", monitor.ErrNotRunning, s.Master, s.Slave)
		}
		w.tell(&st)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if w.name != "" {
			// Its completion is on record also where LAST_SYNCED went back since, as after a change of the slave.
			one, err := w.checkpoint()
			if err == nil && one.Time.Equal(w.at) {
				w.take(&one)
			}
		}
	}
}

// hurry has the marker look at what is held open now, rather than within seconds.
func (w *waiting) hurry(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Its heartbeat counts by LAST_SYNCED alone: what comes of this is for the status to say.
		marker.WaitMark(ctx, w.r.store.Runtime(w.r.session.Master).Dir, w.at)
	}()
	return func() { cancel(); <-done }
}

// tell says why it waits, each kind of reason once, and on a terminal how far the session is.
func (w *waiting) tell(st *status.Status) {
	kind, text := w.why(st)
	if kind != w.said {
		w.show.clear()
		w.said = kind
		fmt.Fprintf(w.e.err, "waiting: %s\n", status.Printable(text))
	}
	w.show.status(*st)
}

// why is what keeps the slave from having everything: the kind of reason, and a sentence.
func (w *waiting) why(st *status.Status) (kind, text string) {
	switch {
	case w.at.After(time.Now()):
		return "future", "the time is yet to come"
	case st.State != status.Active:
		kind = string(st.State) + st.Reason
		if text = "the session is " + string(st.State); st.Reason != "" {
			text += ": " + st.Reason
		}
		return kind, text
	case !st.WaitsUntil.IsZero():
		return "window", "the session " + st.WaitsFor()
	case st.FailuresTotal > 0 && len(st.Failures) > 0:
		f := st.Failures[0]
		return "held back", fmt.Sprintf("%d entries are held back, %q among them: %s: %s", st.FailuresTotal, f.Path, f.Op, f.Error)
	case st.MarkerWaits != "":
		return "marker", "the marker: " + st.MarkerWaits
	case st.WaitingTotal > 0:
		return "waiting", fmt.Sprintf("%d files keep changing or are on their way", st.WaitingTotal)
	}
	return "behind", fmt.Sprintf("the slave is not there yet: %s", st.Crawl)
}
