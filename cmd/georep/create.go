package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"georep/volume"
)

func (e *env) createCommand() *cli.Command {
	return &cli.Command{Name: "create", Usage: "register a session and check its slave", ArgsUsage: "MASTER SLAVE",
		Flags: sessionFlags(yesFlag()), Action: e.create}
}

// create registers nothing unless the slave is fit.
func (e *env) create(c *cli.Context) error {
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	if s, err := t.session(); err == nil {
		return fmt.Errorf("session %s to %q: %w; change it with georep config", s.Master, s.Slave, volume.ErrSessionExists)
	}
	r, err := register(c, t)
	if err != nil {
		return err
	}
	if err := e.agreedToForce(c, r); err != nil {
		return r.undo(err)
	}
	if err := r.check(c.Context, c, e); err != nil {
		return r.undo(err)
	}
	return nil
}
