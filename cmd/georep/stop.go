package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"georep/monitor"
	"georep/status"
	"georep/volume"
)

func (e *env) stopCommand() *cli.Command {
	return &cli.Command{Name: "stop", Usage: "end replication", ArgsUsage: "MASTER [SLAVE]", Action: e.stop}
}

func (e *env) pauseCommand() *cli.Command {
	return &cli.Command{Name: "pause", Usage: "hold replication", ArgsUsage: "MASTER [SLAVE]",
		Action: func(c *cli.Context) error { return e.setPaused(c, true) }}
}

func (e *env) resumeCommand() *cli.Command {
	return &cli.Command{Name: "resume", Usage: "go on after pause", ArgsUsage: "MASTER [SLAVE]",
		Action: func(c *cli.Context) error { return e.setPaused(c, false) }}
}

func (e *env) restartCommand() *cli.Command {
	return &cli.Command{Name: "restart", Usage: "end replication, and start it again", ArgsUsage: "MASTER [SLAVE]", Action: e.restart}
}

// restart leaves the word that the session is to run: cut short, it is what a reboot would make of it.
func (e *env) restart(c *cli.Context) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	if err := r.setStarted(true); err != nil {
		return err
	}
	if err := monitor.Stop(c.Context, r.store, r.session); err != nil && !errors.Is(err, monitor.ErrNotRunning) {
		return fmt.Errorf("session %s to %q: %w", r.session.Master, r.session.Slave, err)
	}
	return e.startOne(c, r)
}

func (e *env) stop(c *cli.Context) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	was := r.session.Started
	err = r.stop(c.Context)
	if errors.Is(err, monitor.ErrNotRunning) && was {
		return nil // it had crashed, or the host was restarted; now it is off for good
	}
	if err != nil {
		return fmt.Errorf("session %s to %q: %w", r.session.Master, r.session.Slave, err)
	}
	return nil
}

// stop saves the word before it acts: a session that was told to stop stays stopped, also when the command is cut short.
// monitor.ErrNotRunning where nothing was to be ended.
func (r *registration) stop(ctx context.Context) error {
	if err := r.setStarted(false); err != nil {
		return err
	}
	return monitor.Stop(ctx, r.store, r.session)
}

// setPaused saves the operator's word and, where a monitor runs, waits until it has obeyed.
func (e *env) setPaused(c *cli.Context, paused bool) error {
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	s, err := r.store.UpdateSession(r.session.Master, r.session.Slave, func(s *volume.Session) error {
		s.Paused = paused
		return nil
	})
	if err != nil {
		return err
	}
	running, err := reload(r.store, s)
	if err != nil || !running {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, readyPatience)
	defer cancel()
	_, err = monitor.WaitStatus(ctx, r.store, s, func(st status.Status) bool {
		return (st.State == status.Paused) == paused
	})
	return err
}
