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
	t, err := parseExisting(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	r := &registration{store: t.store, session: s}
	if err := r.setStarted(true); err != nil {
		return err
	}
	if err := monitor.Stop(c.Context, t.store, s); err != nil && !errors.Is(err, monitor.ErrNotRunning) {
		return fmt.Errorf("session %s to %q: %w", s.Master, s.Slave, err)
	}
	return e.startOne(c, r)
}

// stop saves the word before it acts: a session that was told to stop stays stopped, also when this command is cut
// short.
func (e *env) stop(c *cli.Context) error {
	t, err := parseExisting(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	was := s.Started
	s, err = t.store.UpdateSession(s.Master, t.slave, func(s *volume.Session) error {
		s.Started = false
		return nil
	})
	if err != nil {
		return err
	}
	err = monitor.Stop(c.Context, t.store, s)
	if errors.Is(err, monitor.ErrNotRunning) && was {
		return nil // it had crashed, or the host was restarted; now it is off for good
	}
	if err != nil {
		return fmt.Errorf("session %s to %q: %w", s.Master, s.Slave, err)
	}
	return nil
}

// setPaused saves the operator's word and, where a monitor runs, waits until it has obeyed.
func (e *env) setPaused(c *cli.Context, paused bool) error {
	t, err := parseExisting(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	s, err = t.store.UpdateSession(s.Master, t.slave, func(s *volume.Session) error {
		s.Paused = paused
		return nil
	})
	if err != nil {
		return err
	}
	running, err := reload(t.store, s)
	if err != nil || !running {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, readyPatience)
	defer cancel()
	_, err = monitor.WaitStatus(ctx, t.store, s, func(st status.Status) bool {
		return (st.State == status.Paused) == paused
	})
	return err
}
