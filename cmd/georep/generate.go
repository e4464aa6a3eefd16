package main

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// generateCommand makes what the packages and the documentation need of the tables of commands and settings.
func (e *env) generateCommand() *cli.Command {
	return &cli.Command{Name: "generate", Hidden: true, Usage: "print the manual page, or the reference of settings",
		ArgsUsage: "man|configuration", Action: e.generate}
}

func (e *env) generate(c *cli.Context) (err error) {
	if err := wants(c, 1, 1); err != nil {
		return err
	}
	var page string
	switch c.Args().First() {
	case "man":
		if page, err = newApp(e).ToManWithSection(1); err != nil {
			return fmt.Errorf("make the manual page: %w", err)
		}
	case "configuration":
		page = configReference()
	default:
		return usagef("generate makes man or configuration, and no %q", c.Args().First())
	}
	_, err = fmt.Fprint(e.out, page)
	return err
}
