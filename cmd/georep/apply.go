package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"georep/internal/config"
	"georep/monitor"
	"georep/slave/policy"
	"georep/status"
	"georep/volume"
)

// applyStarts is how many sessions are started at once: a slave that is down holds up no others.
const applyStarts = 8

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", EnvVars: []string{"GEOREP_CONFIG"}, Value: config.Default, Usage: "read this `FILE`"}
}

func (e *env) applyCommand() *cli.Command {
	return &cli.Command{Name: "apply", Usage: "create and change volumes and sessions as a configuration file says", Action: e.apply,
		Flags: []cli.Flag{configFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "dry-run", Usage: "show what would change, and change nothing"},
			&cli.BoolFlag{Name: "prune", Usage: "stop and delete the sessions that the file named at an earlier apply, and names no more"}}}
}

// change is one that apply made, or would make.
type change struct {
	What   string `json:"what"` // volume or session
	Name   string `json:"name"`
	Change string `json:"change"`
}

// applying is one run of apply. What fails is told at its end; it keeps nothing else from being made so.
type applying struct {
	e     *env
	c     *cli.Context
	store *volume.Store
	file  string // the configuration
	want  config.Desired

	changes []change
	errs    []error
	starts  []starting // at the end, together
}

// starting is a session that is to be started.
type starting struct {
	of change
	r  *registration
}

func (e *env) apply(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	a := &applying{e: e, c: c, store: s, changes: []change{}}
	if a.file, err = filepath.Abs(c.String("config")); err != nil {
		return err
	}
	if a.want, err = loadConfig(s, a.file); err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	for i := range a.want.Volumes {
		a.volume(&a.want.Volumes[i])
	}
	a.prune()
	for i := range a.want.Sessions {
		a.session(&a.want.Sessions[i])
	}
	a.startAll()
	if c.Bool("json") {
		a.errs = append(a.errs, printJSON(e.out, map[string]any{"changed": len(a.changes) > 0, "changes": a.changes}))
	}
	return errors.Join(a.errs...)
}

// do makes a change and says so; in a dry run it only says so.
func (a *applying) do(of change, lines []string, act func() error) bool {
	if err := a.c.Context.Err(); err != nil {
		return a.fail(of, err)
	}
	if !a.c.Bool("dry-run") {
		if err := act(); err != nil {
			return a.fail(of, err)
		}
	}
	for _, text := range lines {
		a.changed(change{of.What, of.Name, text})
	}
	return true
}

func (a *applying) changed(ch change) {
	a.changes = append(a.changes, ch)
	if a.c.Bool("json") {
		return
	}
	text := fmt.Sprintf("%s %s: %s", ch.What, ch.Name, ch.Change)
	if a.c.Bool("dry-run") {
		text = "would change: " + text
	}
	fmt.Fprintln(a.e.out, status.Printable(text))
}

func (a *applying) fail(of change, err error) bool {
	a.errs = append(a.errs, fmt.Errorf("%s %s: %w", of.What, of.Name, err))
	return false
}

// managed is what is recorded of the line that names something.
func (a *applying) managed(at config.Place) volume.Managed {
	return volume.Managed{Config: a.file, At: at.String()}
}

func (a *applying) volume(want *config.Volume) {
	of := change{What: "volume", Name: want.Name}
	have, err := a.store.Volume(want.Name)
	switch {
	case errors.Is(err, volume.ErrNoVolume):
		made := a.do(of, []string{"created of " + want.Path}, func() error {
			have, err = createVolume(a.store, want.Name, want.Path)
			return err
		})
		if !made {
			return
		}
	case err != nil:
		a.fail(of, err)
		return
	case !want.Is(have):
		a.fail(of, fmt.Errorf("it is %q here and %q in %s: a volume keeps its directory; delete it first with georep volume delete %s, "+
			"or give the other directory another name", have.Path, want.Path, want.Place, want.Name))
		return
	}
	lines, err := policyChanges(have, want.Policy)
	if err != nil {
		a.fail(of, err)
		return
	}
	if len(lines) == 0 && (a.c.Bool("dry-run") || have.Managed == a.managed(want.Place)) {
		return
	}
	a.do(of, lines, func() error {
		_, err := a.store.UpdateVolume(want.Name, func(v *volume.Volume) error {
			v.Managed = a.managed(want.Place)
			if want.Policy != nil {
				v.Policy = maps.Clone(want.Policy)
			}
			return nil
		})
		return err
	})
}

// policyChanges says how a volume's policy differs from what is wanted. Nil wants nothing of it.
func policyChanges(have volume.Volume, want map[string]string) (lines []string, err error) {
	if want == nil {
		return nil, nil
	}
	before, err := policy.Parse(have.Policy)
	if err != nil {
		return nil, err
	}
	after, err := policy.Parse(want)
	if err != nil {
		return nil, err
	}
	for _, k := range policy.Keys() {
		was, err1 := before.Get(k.Name)
		is, err2 := after.Get(k.Name)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if was != is {
			lines = append(lines, fmt.Sprintf("policy %s: %s -> %s", k.Name, quoted(was), quoted(is)))
		}
	}
	return lines, nil
}

// quoted shows an empty value as what it is.
func quoted(s string) string {
	if s == "" {
		return `""`
	}
	return s
}

// prune stops and deletes what this file named once; of sessions that were made by hand it knows nothing.
func (a *applying) prune() {
	if !a.c.Bool("prune") {
		return
	}
	if missing := a.want.Missing(); len(missing) > 0 { // which session its master belongs to is not sure then
		a.errs = append(a.errs, fmt.Errorf("nothing is pruned: %w", missing))
		return
	}
	sessions, err := a.store.Sessions()
	if err != nil { // those that can be read are there all the same
		a.errs = append(a.errs, err)
	}
	for _, s := range sessions {
		of := change{What: "session", Name: s.Master + " " + s.Slave.String()}
		v, err := a.store.Volume(s.Master)
		if err != nil {
			a.fail(of, err)
			continue
		}
		if s.Managed.Config != a.file || a.want.Session(v, s.Slave) != nil {
			continue
		}
		lines := []string{"deleted"}
		if a.runs(s) {
			lines = []string{"stopped", "deleted"}
		}
		a.do(of, lines, func() error {
			if err := a.stop(s); err != nil {
				return err
			}
			return a.store.DeleteSession(s.Master, s.Slave)
		})
	}
}

// runs tells whether a session has a monitor, or shall have one.
func (a *applying) runs(s volume.Session) bool {
	_, running := status.Running(a.store.Files(s.Master, s.Slave).Pid)
	return running || s.Started
}

// stop is georep stop.
func (a *applying) stop(s volume.Session) error {
	err := (&registration{store: a.store, session: s}).stop(a.c.Context)
	if errors.Is(err, monitor.ErrNotRunning) {
		return nil
	}
	return err
}

// session makes a session and its settings what the file says, and notes whether it is to be started.
func (a *applying) session(want *config.Session) {
	of := change{What: "session", Name: want.Name()}
	r := &registration{store: a.store}
	err := r.find(want)
	switch {
	case errors.Is(err, volume.ErrNoSession), errors.Is(err, volume.ErrNoVolume):
		err = nil
		if !a.do(of, []string{"created" + settingsText(want.Config)}, func() error { return r.create(want, a.managed(want.Place)) }) {
			return
		}
	case err == nil && !a.settings(of, r, want):
		return
	}
	if err != nil {
		a.fail(of, err)
		return
	}
	_, running := status.Running(r.files().Pid)
	switch {
	case want.Started && (!running || !r.session.Started):
		if a.c.Bool("dry-run") {
			a.changed(change{of.What, of.Name, "started"})
			return
		}
		a.starts = append(a.starts, starting{of, r})
	case !want.Started && a.runs(r.session):
		a.do(of, []string{"stopped"}, func() error { return a.stop(r.session) })
	}
}

// find fills in the volume and the session where they are there.
func (r *registration) find(want *config.Session) (err error) {
	r.session = volume.Session{Master: want.Master.Name, Slave: want.Slave} // in a dry run there may be no more
	if r.volume, err = r.store.Master(want.Master); err != nil {
		return err
	}
	s, err := r.store.Session(r.volume.Name, want.Slave)
	if err == nil {
		r.session = s
	}
	return err
}

// create registers the session, and its volume where that is a directory's first use.
func (r *registration) create(want *config.Session, m volume.Managed) (err error) {
	if r.volume, r.newVolume, err = ensureVolume(r.store, want.Master); err != nil {
		return err
	}
	s := volume.Session{Master: r.volume.Name, Slave: want.Slave, Config: want.Config}
	if _, err = r.store.CreateSession(s); err != nil {
		return r.undo(err)
	}
	r.newVolume = false // it is the file's now
	r.session, err = r.store.UpdateSession(s.Master, s.Slave, func(s *volume.Session) error {
		s.Managed = m
		return nil
	})
	return err
}

// settingsText names settings in the order of their table.
func settingsText(set map[string]string) string {
	var words []string
	for _, k := range volume.ConfigKeys() {
		if v, ok := set[k.Name]; ok {
			words = append(words, k.Name+" "+quoted(v))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return " with " + strings.Join(words, ", ")
}

// settings changes those of a session that is there; a monitor that runs takes them up.
func (a *applying) settings(of change, r *registration, want *config.Session) bool {
	var lines []string
	after := volume.Session{Slave: want.Slave, Config: want.Config}
	for _, k := range volume.ConfigKeys() {
		was, _, err1 := r.session.Get(k.Name)
		is, _, err2 := after.Get(k.Name)
		if err := errors.Join(err1, err2); err != nil {
			return a.fail(of, err)
		}
		if was != is {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", k.Name, quoted(was), quoted(is)))
		}
	}
	if len(lines) == 0 && (a.c.Bool("dry-run") || r.session.Managed == a.managed(want.Place)) {
		return true
	}
	return a.do(of, lines, func() (err error) {
		r.session, err = a.store.UpdateSession(r.session.Master, r.session.Slave, func(s *volume.Session) error {
			s.Config, s.Managed = maps.Clone(want.Config), a.managed(want.Place)
			return nil
		})
		if err == nil && len(lines) > 0 {
			if _, err = reload(a.store, r.session); err != nil {
				err = fmt.Errorf("saved, but the session did not take it up: %w", err)
			}
		}
		return err
	})
}

// startAll starts what is to run, some at a time, and waits until each knows how it stands.
func (a *applying) startAll() {
	var all errgroup.Group
	all.SetLimit(applyStarts)
	var told sync.Mutex
	for _, s := range a.starts {
		all.Go(func() error {
			var said bytes.Buffer
			err := (&env{out: &said, err: &said}).startOne(a.c, s.r)
			told.Lock()
			defer told.Unlock()
			a.started(s.of, err, said.String())
			return nil
		})
	}
	_ = all.Wait() // they return none
}

// startOne is georep start of a session that is registered.
func (e *env) startOne(c *cli.Context, r *registration) error {
	if err := r.setStarted(true); err != nil {
		return err
	}
	err := e.launch(c, r)
	switch {
	case errors.Is(err, status.ErrRunning): // the service was faster
		return nil
	case errors.Is(err, errRefused):
		return r.withdraw(err)
	}
	return err
}

// started tells how a start went. A slave that is down is no failure of apply: the session is what the file says, and keeps trying.
func (a *applying) started(of change, err error, said string) {
	var trying *keepsTrying
	if err != nil && !errors.As(err, &trying) && !errors.Is(err, context.DeadlineExceeded) {
		a.fail(of, err)
		return
	}
	a.changed(change{of.What, of.Name, "started"})
	if trying != nil {
		said = line(trying) + "\n"
	}
	if said != "" {
		fmt.Fprintf(a.e.err, "session %s: %s", of.Name, said)
	}
}
