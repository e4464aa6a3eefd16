package main

import (
	"fmt"
	"os"
	"runtime/debug"

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

// fullVersion is the version for people: with the commit, and its date, that the program was built of.
func fullVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version()
	}
	of := map[string]string{}
	for _, s := range info.Settings {
		of[s.Key] = s.Value
	}
	if of["vcs.revision"] == "" {
		return version() + " (" + info.GoVersion + ")"
	}
	text := fmt.Sprintf("%s (commit %.12s of %.10s", version(), of["vcs.revision"], of["vcs.time"])
	if of["vcs.modified"] == "true" {
		text += ", changed since"
	}
	return text + ", " + info.GoVersion + ")"
}

// stateDirOr is the registry's place that the environment names, or the other.
func stateDirOr(other string) string {
	if dir := os.Getenv("GEOREP_STATE_DIR"); dir != "" {
		return dir
	}
	return other
}
