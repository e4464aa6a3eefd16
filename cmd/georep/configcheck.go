package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"georep/internal/config"
)

func (e *env) configcheckCommand() *cli.Command {
	return &cli.Command{Name: "configcheck", Usage: "report every mistake in a configuration file, with its line", Action: e.configcheck,
		Flags: []cli.Flag{configFlag(), jsonFlag()}}
}

// finding is a problem of configcheck --json.
type finding struct {
	File    string `json:"file"`
	Line    int    `json:"line"` // 0: the file as a whole
	Problem string `json:"problem"`
}

// configcheck prints a line for each mistake.
func (e *env) configcheck(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	want, err := loadConfig(s, c.String("config"))
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		return err
	}
	problems = append(problems, want.Missing()...)
	if c.Bool("json") {
		found := []finding{}
		for _, p := range problems {
			found = append(found, finding{p.File, p.Line, p.Text})
		}
		err = printJSON(e.out, map[string]any{"ok": len(found) == 0, "problems": found})
	} else {
		err = e.sayProblems(c, want, problems)
	}
	if err == nil && len(problems) > 0 {
		err = errTold
	}
	return err
}

func (e *env) sayProblems(c *cli.Context, want config.Desired, problems config.Problems) error {
	for _, p := range problems {
		if _, err := fmt.Fprintln(e.out, line(p)); err != nil {
			return err
		}
	}
	if len(problems) > 0 {
		return nil
	}
	_, err := fmt.Fprintf(e.out, "%s is right: volumes: %d, sessions: %d\n", c.String("config"), len(want.Volumes), len(want.Sessions))
	return err
}
