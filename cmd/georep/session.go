package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/monitor"
	"georep/volume"
)

// target is the MASTER and SLAVE of a command line.
type target struct {
	store  *volume.Store
	master volume.Master
	slave  volume.Slave
}

// parseTarget reads the two arguments; more of them are allowed up to most.
func parseTarget(c *cli.Context, most int) (t target, err error) {
	if err := wants(c, 2, most); err != nil {
		return t, err
	}
	if t.master, err = volume.ParseMaster(c.Args().Get(0)); err != nil {
		return t, asUsage(err)
	}
	if t.slave, err = volume.ParseSlave(c.Args().Get(1)); err != nil {
		return t, asUsage(err)
	}
	t.store, err = store(c)
	return t, err
}

// parseExisting is parseTarget for commands on a session that must be there: its master alone will do where it has no other.
func parseExisting(c *cli.Context, most int) (t target, err error) {
	if c.Args().Len() != 1 {
		if err := wants(c, 1, most); err != nil {
			return t, err
		}
		return parseTarget(c, most)
	}
	if t.master, err = volume.ParseMaster(c.Args().First()); err != nil {
		return t, asUsage(err)
	}
	if t.store, err = store(c); err == nil {
		t.slave, err = onlySlave(t.store, t.master)
	}
	return t, err
}

// existing finds the session that the arguments of such a command name.
func existing(c *cli.Context, most int) (*registration, error) {
	t, err := parseExisting(c, most)
	if err != nil {
		return nil, err
	}
	s, err := t.session()
	if err != nil {
		return nil, err
	}
	return &registration{store: t.store, session: s}, nil
}

// onlySlave is the slave of a master that has one.
func onlySlave(s *volume.Store, m volume.Master) (volume.Slave, error) {
	v, err := s.Master(m)
	if errors.Is(err, volume.ErrNoVolume) {
		err = fmt.Errorf("%w: %w", volume.ErrNoSession, err)
	}
	if err != nil {
		return volume.Slave{}, err
	}
	all, err := s.Sessions()
	if err != nil { // what cannot be read may be another session of this master
		return volume.Slave{}, err
	}
	var slaves []volume.Slave
	var names []string
	for _, each := range all {
		if each.Master == v.Name {
			slaves, names = append(slaves, each.Slave), append(names, each.Slave.String())
		}
	}
	switch len(slaves) {
	case 0:
		return volume.Slave{}, fmt.Errorf("%w: volume %s is not replicated: see georep status", volume.ErrNoSession, v.Name)
	case 1:
		return slaves[0], nil
	}
	return volume.Slave{}, usagef("volume %s has several sessions, name the slave of one: %s", v.Name, strings.Join(names, ", "))
}

// wants checks the number of arguments.
func wants(c *cli.Context, least, most int) error {
	switch n := c.Args().Len(); {
	case n < least:
		return usagef("%s needs %s", c.Command.HelpName, c.Command.ArgsUsage)
	case n > most && most == 0:
		return usagef("%s takes no arguments; there is %q", c.Command.HelpName, c.Args().Get(most))
	case n > most:
		return usagef("%s takes %s; %q is too many", c.Command.HelpName, c.Command.ArgsUsage, c.Args().Get(most))
	}
	return nil
}

// session finds a session that must be there. Its error says so even where the volume is missing already.
func (t target) session() (volume.Session, error) {
	v, err := t.store.Master(t.master)
	if err != nil && !errors.Is(err, volume.ErrNoVolume) {
		return volume.Session{}, err
	}
	var s volume.Session
	if err == nil {
		s, err = t.store.Session(v.Name, t.slave)
	}
	if errors.Is(err, volume.ErrNoVolume) || errors.Is(err, volume.ErrNoSession) {
		return s, fmt.Errorf("%w: %w", volume.ErrNoSession, err)
	}
	return s, err
}

// sessionFlags are the settings of a session, each as a flag, and --force.
func sessionFlags(more ...cli.Flag) []cli.Flag {
	flags := []cli.Flag{&cli.BoolFlag{Name: "force", Usage: "use a slave that is not empty or belongs to another master"}}
	for _, k := range volume.ConfigKeys() {
		if volume.IsList(k.Name) {
			flags = append(flags, &cli.GenericFlag{Name: k.Name, Usage: strings.Replace(k.Doc, "one a line", "once for each `PATTERN`", 1), Aliases: volume.OldNames(k.Name), Value: &lines{}})
			continue
		}
		if k.Default == "false" {
			flags = append(flags, &cli.BoolFlag{Name: k.Name, Aliases: volume.OldNames(k.Name), Usage: k.Doc})
			continue
		}
		flags = append(flags, &cli.StringFlag{Name: k.Name, Aliases: volume.OldNames(k.Name), Usage: k.Doc, DefaultText: k.Default})
	}
	return append(flags, more...)
}

// lines is a flag that may be given several times, with a line each time.
type lines struct {
	text string
	some bool
}

// Set implements cli.Generic.
func (l *lines) Set(line string) error {
	if l.some {
		l.text += "\n"
	}
	l.text, l.some = l.text+line, true
	return nil
}

// String implements cli.Generic.
func (l *lines) String() string { return l.text }

// Get implements flag.Getter.
func (l *lines) Get() any { return l.text }

// applyFlags sets in s what was given as flags.
func applyFlags(c *cli.Context, s *volume.Session) error {
	for _, k := range volume.ConfigKeys() {
		if !here(c, k.Name) {
			continue
		}
		if err := s.Set(k.Name, configValue(k.Name, fmt.Sprint(c.Value(k.Name)))); err != nil {
			return asUsage(err)
		}
	}
	if here(c, "exclude-from") {
		return s.CheckFilter()
	}
	return nil
}

// anySetting tells whether a setting was given as a flag.
func anySetting(c *cli.Context) bool {
	return slices.ContainsFunc(volume.ConfigKeys(), func(k volume.ConfigKey) bool { return here(c, k.Name) })
}

// here tells whether the command itself was given the flag, not georep before it.
func here(c *cli.Context, name string) bool {
	for _, n := range c.LocalFlagNames() {
		if n == name {
			return true
		}
	}
	return false
}

// configValue makes file names on this host mean the same from every directory. The monitor and its workers may have
// another working directory than the one in which the operator typed; ~ is left for the SSH client to expand.
func configValue(key, value string) string {
	if volume.IsFile(key) && value != "" && !strings.HasPrefix(value, "~") {
		if abs, err := filepath.Abs(value); err == nil {
			return abs
		}
	}
	return value
}

// registration is a session for a command, and what was made for it.
type registration struct {
	store   *volume.Store
	volume  volume.Volume
	session volume.Session
	// What this command made, and undo forgets again.
	newVolume  bool
	newSession bool
	before     map[string]string // the settings of a session that was there, where this command gave it others
}

// register finds the session, or makes it and its volume, and saves the settings that are given as flags.
func register(c *cli.Context, t target) (*registration, error) {
	if err := applyFlags(c, &volume.Session{Config: map[string]string{}}); err != nil {
		return nil, err // before anything is made
	}
	r := &registration{store: t.store}
	var err error
	if r.volume, r.newVolume, err = ensureVolume(t.store, t.master); err != nil {
		return nil, err
	}
	r.session, err = t.store.Session(r.volume.Name, t.slave)
	switch {
	case errors.Is(err, volume.ErrNoSession):
		want := volume.Session{Master: r.volume.Name, Slave: t.slave, Config: map[string]string{}}
		if err = applyFlags(c, &want); err == nil {
			r.session, err = t.store.CreateSession(want)
			r.newSession = err == nil
		}
	case err == nil && anySetting(c):
		if err = sessionFree(t.store, r.session); err != nil {
			break
		}
		var before map[string]string
		r.session, err = t.store.UpdateSession(r.volume.Name, t.slave, func(s *volume.Session) error {
			before = s.Clone().Config
			return applyFlags(c, s)
		})
		if err == nil {
			r.before = before
		}
	}
	if err != nil {
		return nil, r.undo(err)
	}
	return r, nil
}

// undo forgets what was made for a command that failed, and returns why it did.
func (r *registration) undo(why error) error {
	if r.newSession {
		if err := r.store.DeleteSession(r.session.Master, r.session.Slave); err != nil {
			return fmt.Errorf("%w; the session stays registered: %w", why, err)
		}
	}
	if r.before != nil {
		if err := r.resetSettings(); err != nil {
			return fmt.Errorf("%w; the session keeps the new settings: %w", why, err)
		}
	}
	if r.newVolume {
		if err := r.store.DeleteVolume(r.volume.Name); err != nil {
			return fmt.Errorf("%w; the volume stays registered: %w", why, err)
		}
	}
	return why
}

// resetSettings gives back what this command has set, and leaves what others have set meanwhile.
func (r *registration) resetSettings() error {
	_, err := r.store.UpdateSession(r.session.Master, r.session.Slave, func(s *volume.Session) error {
		for _, k := range volume.ConfigKeys() {
			was, had := r.before[k.Name]
			ours, set := r.session.Config[k.Name]
			if was == ours && had == set || s.Config[k.Name] != ours {
				continue
			}
			if delete(s.Config, k.Name); had {
				s.Config[k.Name] = was
			}
		}
		return nil
	})
	return err
}

// check connects to the slave once, so that it is known to be fit, and ours.
func (r *registration) check(ctx context.Context, c *cli.Context, e *env) error {
	tree, err := connect.Slave(ctx, connect.Config{Store: r.store, Session: r.session, Volume: r.volume, Force: c.Bool("force"),
		Version: version(), Logger: e.logger(c), Wire: new(atomic.Int64)})
	if err != nil {
		return err
	}
	return tree.Close()
}

// files are the session's.
func (r *registration) files() volume.Files { return r.store.Files(r.session.Master, r.session.Slave) }

// ensureVolume finds the master, or makes a volume of an absolute path on its first use.
func ensureVolume(s *volume.Store, m volume.Master) (v volume.Volume, created bool, err error) {
	v, err = s.Master(m)
	if m.Path != "" && err != nil {
		err = beneath.RootError(m.Path, err)
	}
	if m.Path == "" || !errors.Is(err, volume.ErrNoVolume) {
		return v, false, err
	}
	name, err := s.NameForPath(m.Path)
	if err != nil {
		return v, false, err
	}
	v, err = createVolume(s, name, m.Path)
	return v, err == nil, err
}

// createVolume finds out what the directory is and what its file system can do, and registers it.
func createVolume(s *volume.Store, name, path string) (volume.Volume, error) {
	resolved, err := volume.ResolveDir(path)
	if err != nil {
		return volume.Volume{}, beneath.RootError(path, err)
	}
	root, err := beneath.OpenRoot(resolved, true)
	if err != nil {
		return volume.Volume{}, beneath.RootError(resolved, fmt.Errorf("open the volume: %w", err))
	}
	defer root.Close()
	id, err := root.Identity()
	if err != nil {
		return volume.Volume{}, fmt.Errorf("identify %q: %w", path, err)
	}
	if err := beneath.Identifies(root); err != nil {
		return volume.Volume{}, fmt.Errorf("%q cannot be a volume: %w", path, err)
	}
	ns, err := root.ProbeNamespace()
	if err != nil {
		return volume.Volume{}, fmt.Errorf("%q cannot be a volume: it takes neither trusted.* nor user.* extended "+
			"attributes (%w); run as its owner or root, on a file system that has them", path, err)
	}
	if _, err := s.CreateVolume(volume.NewVolume{Name: name, Path: path, RootGFID: id.GFID.String(), FSID: id.FSID}); err != nil {
		return volume.Volume{}, err
	}
	v, err := s.UpdateVolume(name, func(v *volume.Volume) error {
		v.Namespace = string(ns)
		return nil
	})
	if err != nil {
		return v, errors.Join(err, s.DeleteVolume(name))
	}
	return v, nil
}

// reload makes a running monitor take up what was saved. It tells whether one runs.
func reload(s *volume.Store, session volume.Session) (bool, error) {
	err := monitor.Reload(s, session)
	if errors.Is(err, monitor.ErrNotRunning) {
		return false, nil
	}
	return err == nil, err
}
