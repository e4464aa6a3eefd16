package main

import (
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/slave"
	"georep/slave/agent"
	"georep/slave/disk"
	"georep/volume"
)

func (e *env) agentCommand() *cli.Command {
	return &cli.Command{Name: "agent", Hidden: true, Usage: "the slave's end, on standard input and output",
		Action: e.agent, Flags: []cli.Flag{
			&cli.StringFlag{Name: "volume", Usage: "serve this volume and nothing else"},
			&cli.StringFlag{Name: "path", Usage: "serve this directory and nothing else"},
		}}
}

// agent serves one client and ends with it. Standard output belongs to the protocol; whatever is said to people goes
// to standard error.
func (e *env) agent(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	if c.IsSet("volume") && c.IsSet("path") {
		return usagef("agent takes --volume or --path, not both")
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	// The text goes to the SSH client, who shows it to people.
	log := zerolog.New(zerolog.ConsoleWriter{Out: e.err, NoColor: true}).
		Level(levelOr(globals(c).String("log-level"), "warn")).With().Timestamp().Logger()
	rw, err := agent.Stdio()
	if err != nil {
		return err
	}
	o := &opener{store: s, volume: c.String("volume"), path: c.String("path"), log: log}
	host := &agent.Host{Version: version(), Open: o.open, Join: o.permits}
	err = host.Serve(c.Context, rw)
	if c.Context.Err() != nil {
		return nil // it was told to end
	}
	return err
}

// opener gives clients what they ask for and may have.
type opener struct {
	// The registry of this host, where the slave's volumes are.
	store        *volume.Store
	volume, path string // not "": this and nothing else
	log          zerolog.Logger
}

// permits refuses what this login may not have, to a session and to a stream that joins one.
func (o *opener) permits(h agent.Hello) error {
	if o.volume != "" && h.Volume != o.volume || o.path != "" && h.Path != o.path {
		return fmt.Errorf("%w: this login may use only %q, and asks for %q", slave.ErrNoVolume, o.volume+o.path,
			h.Volume+h.Path)
	}
	return nil
}

// open gives the client its tree: open for good, with the slave's lock, or aside, to look only. An error goes to the
// client, which shows it to the operator there: it says what to do on the slave's host.
func (o *opener) open(h agent.Hello) (slave.Tree, error) {
	if err := o.permits(h); err != nil {
		return nil, err
	}
	options := disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Force: h.Force, Create: h.Create,
		Logger: o.log, Version: version()}
	if h.Volume != "" {
		v, err := o.store.Volume(h.Volume)
		if errors.Is(err, volume.ErrNoVolume) {
			return nil, fmt.Errorf("%w: %q is not registered on the slave's host; run georep volume create %s PATH there",
				slave.ErrNoVolume, h.Volume, h.Volume)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", slave.ErrNoVolume, err)
		}
		// A registered directory that is missing was unmounted or removed; an empty one in its place would take all again.
		options.Path, options.Create = v.Path, false
	}
	if h.Aside {
		aside, err := disk.OpenAside(options)
		if err != nil {
			return nil, err
		}
		return aside, nil
	}
	tree, err := disk.Open(options)
	if err != nil {
		return nil, err // not tree, which would be no nil interface
	}
	return tree, nil
}
