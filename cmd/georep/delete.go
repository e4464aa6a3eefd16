package main

import "github.com/urfave/cli/v2"

func (e *env) deleteCommand() *cli.Command {
	return &cli.Command{Name: "delete", Usage: "forget a session; master and slave keep their data",
		ArgsUsage: "MASTER SLAVE", Action: e.delete}
}

func (e *env) delete(c *cli.Context) error {
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	return t.store.DeleteSession(s.Master, s.Slave)
}
