package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"georep/internal/connect"
	"georep/internal/worker"
	"georep/marker"
	"georep/monitor"
	"georep/monitor/report"
	"georep/status"
	"georep/volume"
)

// maxListed is how many failing paths a sync names.
const maxListed = 20

// markerWait bounds the wait for a marker that is ending and keeps newcomers out meanwhile.
const markerWait = 15 * time.Second

func (e *env) syncCommand() *cli.Command {
	return &cli.Command{Name: "sync", ArgsUsage: "MASTER [SLAVE]", Action: e.sync,
		Flags: sessionFlags(append(dryFlags(), &cli.BoolFlag{Name: "now", Usage: "do not wait for a window"})...),
		Usage: "one shot: until the slave has all that was there at the start"}
}

// sync does the work itself where no monitor runs, with the pid file held in a monitor's place; else it waits for the
// monitor's worker to be in step with all that was there when it began.
func (e *env) sync(c *cli.Context) error {
	// Before anything else: what is promised counts from the moment the operator asked.
	began := time.Now()
	if err := checkDry(c); err != nil {
		return err
	}
	t, err := parseExisting(c, 2)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return e.dryRun(c, t)
	}
	r, err := register(c, t)
	if err != nil {
		return err
	}
	pid, err := status.AcquirePid(r.files().Pid)
	if errors.Is(err, status.ErrRunning) {
		return e.syncRunning(c, r, began)
	}
	if err != nil {
		return r.undo(err)
	}
	if err := e.agreedToForce(c, r); err != nil {
		return r.undo(errors.Join(err, pid.Close()))
	}
	p, err := e.syncInWindow(c, r)
	if closed := pid.Close(); err == nil {
		err = closed
	}
	if err != nil && connect.Final(err) {
		return r.undo(err)
	}
	if err != nil {
		e.listFailures(p)
		return err
	}
	if p.NotKept != "" {
		fmt.Fprintf(e.err, "the slave's files cannot keep: %s\n", p.NotKept)
	}
	return e.summary(p.Synced, began)
}

// errWindow ends a sync whose window is over.
var errWindow = errors.New("its window was over before the slave was in step: the next sync goes on from there; --now goes over it")

// syncInWindow is syncOnce that waits for a window, and ends with it, unless the operator wants it now.
func (e *env) syncInWindow(c *cli.Context, r *registration) (report.Progress, error) {
	o, err := r.session.Options()
	if err != nil {
		return report.Progress{}, err
	}
	for !c.Bool("now") {
		open, until := o.Windows.Open(time.Now())
		if open && until.IsZero() {
			break
		}
		if open {
			ctx, cancel := context.WithDeadlineCause(c.Context, until, errWindow)
			defer cancel()
			p, err := e.syncOnce(ctx, c, r)
			if err != nil && errors.Is(context.Cause(ctx), errWindow) {
				err = errWindow
			}
			return p, err
		}
		e.tellWindow(until)
		select {
		case <-c.Context.Done():
			return report.Progress{}, c.Context.Err()
		case <-time.After(min(max(time.Until(until), time.Millisecond), time.Minute)): // the clock may be set meanwhile
		}
	}
	return e.syncOnce(c.Context, c, r)
}

// tellWindow says once what a sync waits for.
func (e *env) tellWindow(until time.Time) {
	if text := (status.Status{WaitsUntil: status.Time{Time: until}}).WaitsFor(); e.window != text {
		e.window = text
		fmt.Fprintf(e.err, "the session %s; --now would not wait\n", text)
	}
}

// syncOnce is the whole sync, in this process. The pid file is held, so no monitor starts meanwhile.
func (e *env) syncOnce(ctx context.Context, c *cli.Context, r *registration) (report.Progress, error) {
	files, err := r.store.MakeRuntime(r.volume.Name)
	if err != nil {
		return report.Progress{}, err
	}
	wait, cancel := context.WithTimeout(ctx, markerWait)
	defer cancel()
	users, err := volume.WaitLock(wait, files.UsersLock, volume.Shared)
	if err != nil {
		return report.Progress{}, err
	}
	defer users.Close()
	carry()
	show := newProgress(e.err)
	p, err := worker.Sync(ctx, worker.SyncConfig{Progress: show.shows(), Config: worker.Config{
		Store: r.store, Session: r.session, Volume: r.volume, Version: version(), Logger: e.logger(c), Force: c.Bool("force")}})
	show.clear()
	if p.Stime != 0 || !p.LastSynced.IsZero() {
		if werr := recordSync(r, p); err == nil {
			err = werr
		}
	}
	return p, err
}

// recordSync writes what the sync achieved where status looks for it, as a monitor would.
func recordSync(r *registration, p report.Progress) error {
	st, err := status.Read(r.files().Status)
	if err != nil {
		st = status.New(r.session.Master, r.session.Slave.String())
	}
	st.State, st.Reason, st.WorkerPid, st.MonitorPid = status.Stopped, "", 0, os.Getpid()
	st.Synced, st.Pending, st.LagSeconds, st.ETASeconds = p.Synced, p.Pending, p.LagSeconds, 0
	st.Failures, st.FailuresTotal = p.Failures, p.FailuresTotal
	if p.NotKept != "" || p.Policy != st.SlavePolicy {
		st.NotKept = p.NotKept
	}
	st.SlavePolicy = p.Policy
	if p.LastSynced.After(st.LastSynced.Time) || st.LastSynced.After(time.Now()) {
		st.LastSynced = p.LastSynced
	}
	if p.HiddenAt.After(st.HiddenAt.Time) {
		st.HiddenAt = p.HiddenAt
	}
	st.Stime = max(st.Stime, p.Stime)
	st.Updated = status.Time{Time: time.Now().Round(0)}
	return status.Write(r.files().Status, st)
}

// syncRunning leaves the work to the session's own worker and waits for it.
func (e *env) syncRunning(c *cli.Context, r *registration, began time.Time) error {
	if c.Bool("now") {
		return fmt.Errorf("the session runs, and its windows hold: stop it first, or change them with georep config %s %s windows",
			r.session.Master, r.session.Slave)
	}
	if c.NumFlags() > 0 {
		if _, err := reload(r.store, r.session); err != nil {
			return err
		}
	}
	runtime := r.store.Runtime(r.session.Master).Dir
	// What changed before this command is marked by then, so a LastSynced after began covers it.
	if err := marker.WaitMark(c.Context, runtime, began); err != nil && !errors.Is(err, marker.ErrNotRunning) {
		return err
	}
	show := newProgress(e.err)
	st, err := monitor.WaitStatus(c.Context, r.store, r.session, func(st status.Status) bool {
		show.status(st)
		if !st.WaitsUntil.IsZero() {
			e.tellWindow(st.WaitsUntil.Time)
		}
		return st.State == status.Faulty || st.State == status.Paused || st.LastSynced.After(began)
	})
	show.clear()
	switch {
	case errors.Is(err, monitor.ErrNotRunning):
		return fmt.Errorf("the session ended before the slave was in step: %w", err)
	case err != nil:
		return err
	case st.LastSynced.After(began):
		return e.summary(st.Synced, began)
	case st.State == status.Paused:
		return fmt.Errorf("the session is paused: go on with georep resume %s %s", r.session.Master, r.session.Slave)
	}
	return errors.New(st.Reason)
}

// summary is the one line that a sync leaves on standard output.
func (e *env) summary(s status.Synced, began time.Time) error {
	_, err := fmt.Fprintf(e.out, "in step: %d files, %s (%s on the wire), %d renames, %d purges in %s\n", s.Files,
		status.Bytes(s.BytesContent), status.Bytes(s.BytesWire), s.Renames, s.Purges,
		time.Since(began).Round(10*time.Millisecond))
	return err
}

// listFailures names what could not be brought over.
func (e *env) listFailures(p report.Progress) {
	for i, f := range p.Failures {
		if i == maxListed {
			fmt.Fprintf(e.err, "... and %d more\n", max(p.FailuresTotal, len(p.Failures))-maxListed)
			return
		}
		fmt.Fprintf(e.err, "%s %q: %s\n", status.Printable(f.Op), f.Path, status.Printable(status.OneLine(f.Error)))
	}
}
