package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// generateCommand makes what the packages need of the table of commands.
func (e *env) generateCommand() *cli.Command {
	return &cli.Command{Name: "generate", Hidden: true, Usage: "print the manual page", ArgsUsage: "man", Action: func(c *cli.Context) error {
		if err := wants(c, 1, 1); err != nil {
			return err
		}
		if c.Args().First() != "man" {
			return usagef("generate makes man, and no %q", c.Args().First())
		}
		page, err := newApp(e).ToManWithSection(1)
		if err != nil {
			return fmt.Errorf("make the manual page: %w", err)
		}
		_, err = fmt.Fprint(e.out, page)
		return err
	}}
}
