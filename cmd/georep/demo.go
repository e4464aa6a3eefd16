package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"georep/internal/demo"
)

func (e *env) demoCommand() *cli.Command {
	return &cli.Command{Name: "demo", Usage: "the whole thing on this machine, in seconds", Action: e.demo,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "keep", Usage: "leave it running to play with, until Ctrl-C"},
			&cli.StringFlag{Name: "dir", Usage: "make its files below `DIR`"},
		}}
}

// demo needs nothing registered and leaves nothing: the state directory is the demo's own.
func (e *env) demo(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	return demo.Run(c.Context, demo.Config{Program: exe, Dir: c.String("dir"), Keep: c.Bool("keep"), Out: e.out,
		Logger: e.logger(c)})
}
