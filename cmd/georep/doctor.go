package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/doctor"
	"georep/marker/xtime"
	"georep/status"
	"georep/volume"
)

// wayFlags are the settings that decide how a slave is reached.
var wayFlags = []string{"ssh-port", "identity", "known-hosts", "host-key", "remote-georep", "remote-state-dir", "agentless"}

func (e *env) doctorCommand() *cli.Command {
	flags := []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "one JSON object a finding, a line each"}}
	for _, f := range sessionFlags() {
		if slices.Contains(wayFlags, f.Names()[0]) {
			flags = append(flags, f)
		}
	}
	return &cli.Command{Name: "doctor", ArgsUsage: "[MASTER [SLAVE]]", Action: e.doctor, Flags: flags,
		Usage: "check this host, a master and the way to its slave"}
}

// doctor exits with 1 where it finds a problem, without a word more than the findings.
func (e *env) doctor(c *cli.Context) error {
	o, err := e.patient(c)
	if err != nil {
		return err
	}
	show := &findings{e: e, json: c.Bool("json"), count: map[doctor.Level]int{}}
	o.Tell, o.Version, o.Logger = show.tell, version(), zerolog.Nop()
	worst := doctor.Run(c.Context, o)
	show.sum()
	switch {
	case show.failed != nil:
		return show.failed
	case c.Context.Err() != nil:
		return c.Context.Err()
	case worst == doctor.Problem:
		return errTold
	}
	return nil
}

// patient is what the arguments name. A session need not be registered: whether it would work is what is asked then.
func (e *env) patient(c *cli.Context) (o doctor.Options, err error) {
	if err := wants(c, 0, 2); err != nil {
		return o, err
	}
	if o.Store, err = store(c); err != nil || c.Args().Len() == 0 {
		return o, err
	}
	m, err := volume.ParseMaster(c.Args().First())
	if err != nil {
		return o, asUsage(err)
	}
	o.Volume, err = o.Store.Master(m)
	o.Registered = err == nil
	if errors.Is(err, volume.ErrNoVolume) && m.Path != "" {
		o.Volume, err = volume.Volume{Path: m.Path, UUID: xtime.NewUUID().String()}, nil
	}
	if err != nil {
		return o, err
	}
	o.Session, err = e.way(c, &o)
	return o, err
}

// way is the session to look at; nil where none is named, and the master has not exactly one.
func (e *env) way(c *cli.Context, o *doctor.Options) (*volume.Session, error) {
	var to volume.Slave
	var err error
	if c.Args().Len() == 2 {
		if to, err = volume.ParseSlave(c.Args().Get(1)); err != nil {
			return nil, asUsage(err)
		}
	} else {
		if !o.Registered {
			return nil, nil
		}
		if to, err = onlySlave(o.Store, volume.Master{Name: o.Volume.Name}); errors.Is(err, volume.ErrNoSession) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := o.Store.Session(o.Volume.Name, to)
	o.Known = o.Registered && err == nil
	if !o.Registered || errors.Is(err, volume.ErrNoSession) {
		s, err = volume.Session{Master: o.Volume.Name, Slave: to, UUID: xtime.NewUUID().String(), Config: map[string]string{}}, nil
	}
	if err != nil {
		return nil, err
	}
	for _, name := range wayFlags {
		if !here(c, name) {
			continue
		}
		if err := s.Set(name, configValue(name, fmt.Sprint(c.Value(name)))); err != nil {
			return nil, asUsage(err)
		}
	}
	return &s, nil
}

// findings writes what the doctor finds as it comes.
type findings struct {
	e      *env
	json   bool
	place  string
	count  map[doctor.Level]int
	failed error // of writing
}

// signs stand before a line, so that what is wrong is found at a glance, without colours too.
var signs = map[doctor.Level]string{doctor.OK: "ok", doctor.Note: "note", doctor.Warning: "WARN", doctor.Problem: "FAIL", doctor.Skipped: "-"}

func (f *findings) tell(d doctor.Finding) {
	if f.failed != nil {
		return
	}
	f.count[d.Level]++
	if f.json {
		f.failed = json.NewEncoder(status.JSONWriter{W: f.e.out}).Encode(d)
		return
	}
	var text strings.Builder
	if d.Place != f.place {
		if f.place != "" {
			text.WriteByte('\n')
		}
		f.place = d.Place
		text.WriteString(strings.ToUpper(d.Place[:1]) + d.Place[1:] + "\n")
	}
	const before, name = 9, 18
	found := d.Found
	if d.Remedy != "" {
		found += "; " + d.Remedy
	}
	head := fmt.Sprintf("  %-5s  %-*s", signs[d.Level], name, d.Check)
	text.WriteString(head + fill(status.Printable(found), len(head), before+name) + "\n")
	_, f.failed = f.e.out.Write([]byte(text.String()))
}

// sum says in a last line how it is.
func (f *findings) sum() {
	if f.json || f.failed != nil {
		return
	}
	var text []string
	for _, l := range []doctor.Level{doctor.Problem, doctor.Warning} {
		if n := f.count[l]; n > 0 {
			text = append(text, fmt.Sprintf("%d %s", n, signs[l]))
		}
	}
	if len(text) == 0 {
		text = []string{"nothing is wrong"}
	}
	_, f.failed = fmt.Fprintf(f.e.out, "\n%s\n", strings.Join(text, ", "))
}
