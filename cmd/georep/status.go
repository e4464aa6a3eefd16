package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"georep/internal/agenthost"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// home clears the screen.
const home = "\x1b[H\x1b[2J"

func (e *env) statusCommand() *cli.Command {
	return &cli.Command{Name: "status", Usage: "how the sessions stand", ArgsUsage: "[MASTER [SLAVE]]", Action: e.status,
		Flags: append([]cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "detail", Usage: "more columns, reasons and failures"},
			&cli.BoolFlag{Name: "watch", Usage: "a screen of it, until Ctrl-C"},
			&cli.BoolFlag{Name: "incoming", Usage: "on a slave's host: list only the masters that replicate to it"}}, checkFlags()...)}
}

// status reads the registry and the sessions' files; no process is asked, so it answers also when all have crashed.
func (e *env) status(c *cli.Context) error {
	if c.Bool("check") {
		return e.check(c)
	}
	if _, err := limitsOf(c); err != nil {
		return err
	}
	sel, err := parseSelection(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") {
		return e.watch(c, sel)
	}
	return e.showStatus(c, sel)
}

// selection says which sessions to show.
type selection struct {
	store  *volume.Store
	master *volume.Master // nil: all
	slave  *volume.Slave
}

// parseSelection reads the arguments; it looks nothing up.
func parseSelection(c *cli.Context) (sel selection, err error) {
	if err := wants(c, 0, 2); err != nil {
		return sel, err
	}
	if c.Args().Len() > 0 {
		m, err := volume.ParseMaster(c.Args().Get(0))
		if err != nil {
			return sel, asUsage(err)
		}
		sel.master = &m
	}
	if c.Args().Len() > 1 {
		s, err := volume.ParseSlave(c.Args().Get(1))
		if err != nil {
			return sel, asUsage(err)
		}
		sel.slave = &s
	}
	sel.store, err = store(c)
	return sel, err
}

// sessions are those that were asked for; a master or slave that is named must have one.
func (sel selection) sessions() ([]volume.Session, error) {
	all, err := sel.store.Sessions()
	if sel.master == nil {
		return all, err
	}
	v, verr := sel.store.Master(*sel.master)
	if verr != nil {
		return nil, verr
	}
	var out []volume.Session
	for _, s := range all {
		if s.Master == v.Name && (sel.slave == nil || s.Slave == *sel.slave) {
			out = append(out, s)
		}
	}
	if len(out) == 0 && err == nil {
		err = sel.missing(v)
	}
	return out, err
}

// missing says what is not there.
func (sel selection) missing(v volume.Volume) error {
	if sel.slave != nil {
		return fmt.Errorf("%w: volume %s is not replicated to %q", volume.ErrNoSession, v.Name, *sel.slave)
	}
	return fmt.Errorf("%w: volume %s is not replicated", volume.ErrNoSession, v.Name)
}

// showStatus prints what can be read, and returns what cannot.
func (e *env) showStatus(c *cli.Context, sel selection) error {
	var coming []agenthost.Incoming
	var cerr error
	if !c.Bool("json") || c.Bool("incoming") {
		coming, cerr = sel.incoming()
	}
	if c.Bool("incoming") {
		return firstError(e.showIncoming(c, coming), cerr)
	}
	sessions, err := sel.sessions()
	if errors.Is(err, volume.ErrNoSession) && len(coming) > 0 {
		err = nil // the volume is a slave
	}
	if err != nil && len(sessions) == 0 {
		return err
	}
	errs := []error{err, cerr}
	list := []status.Status{}
	for _, s := range sessions {
		st, err := monitor.Status(sel.store, s)
		if err != nil {
			err = fmt.Errorf("status of %s to %q: %w", s.Master, s.Slave, err)
		}
		errs, list = append(errs, err), append(list, st)
	}
	// Whole before it is written, so that the screen of --watch does not flicker.
	var b bytes.Buffer
	switch {
	case c.Bool("json"):
		err = status.WriteJSON(&b, list)
	case len(list)+len(coming) == 0:
		b.WriteString("no sessions\n")
		err = nil
	default:
		err = writeTables(&b, list, coming, c.Bool("detail"))
	}
	errs = append(errs, err)
	if c.Bool("watch") && terminal(e.out) {
		fmt.Fprint(e.out, home)
	}
	_, err = e.out.Write(b.Bytes())
	return errors.Join(append(errs, err)...)
}

// incoming are the sessions of other hosts into the volume that was asked for, or all.
func (sel selection) incoming() ([]agenthost.Incoming, error) {
	list, err := agenthost.AllIncoming(sel.store)
	if sel.master == nil {
		return list, err
	}
	v, verr := sel.store.Master(*sel.master)
	return slices.DeleteFunc(list, func(in agenthost.Incoming) bool {
		return verr != nil || sel.slave != nil || in.Slave != v.Name && in.Slave != v.Path
	}), err
}

// writeTables has what goes out of this host, and what comes in.
func writeTables(b *bytes.Buffer, list []status.Status, coming []agenthost.Incoming, detail bool) error {
	if len(list) > 0 {
		if err := status.WriteTable(b, list, detail); err != nil {
			return err
		}
	}
	if len(coming) == 0 {
		return nil
	}
	if len(list) > 0 {
		b.WriteString("\n")
	}
	b.WriteString("Replicated to this host:\n")
	return writeIncoming(b, coming)
}
