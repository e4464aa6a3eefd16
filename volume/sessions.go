package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"georep/marker/xtime"
)

// sessionFile is Session as the file has it. A field that is new is left out of older files, and
// its zero value must mean what was true before. New fields need a zero value that means what was
// true before they came; a worker of an earlier version does not read them.
type sessionFile struct {
	Master  string            `toml:"master"`
	Slave   string            `toml:"slave"`
	UUID    string            `toml:"uuid"`
	Created time.Time         `toml:"created"`
	Started bool              `toml:"started"`
	Paused  bool              `toml:"paused"`
	SlaveID string            `toml:"slave_id,omitempty"`
	Managed Managed           `toml:"managed,omitzero"`
	Config  map[string]string `toml:"config,omitempty"` // by toText
}

// CreateSession registers want: Master, Slave and Config are taken from it, the rest is set. It refuses a master that is
// no volume (ErrNoVolume), a session that is there (ErrSessionExists) and a local slave that shares a tree with its
// master (ErrOverlap).
func (s *Store) CreateSession(want Session) (Session, error) {
	sess := want.Clone()
	sess.UUID, sess.Created = xtime.NewUUID().String(), time.Now().UTC().Truncate(time.Second)
	sess.Started, sess.Paused, sess.SlaveID, sess.Managed = false, false, "", Managed{}
	if _, err := sess.Options(); err != nil {
		return Session{}, err
	}
	err := s.locked(func() error { return s.addSession(sess) })
	if err != nil {
		return Session{}, err
	}
	return sess, nil
}

// addSession runs under the lock, so that neither the volume nor a session of the same name comes
// or goes meanwhile. An error in the middle leaves a directory without session.toml, which is no
// session, and which the next try clears.
func (s *Store) addSession(sess Session) error {
	master, err := s.Volume(sess.Master)
	if err != nil {
		return err
	}
	if err := notNested(master, sess.Slave); err != nil {
		return err
	}
	files := s.Files(sess.Master, sess.Slave)
	if _, err := os.Lstat(files.Session); err == nil {
		return kindf(ErrSessionExists, "session %s to %q exists already: see georep status %s %s",
			sess.Master, sess.Slave, sess.Master, sess.Slave)
	}
	// A deletion that was cut short may have left a status behind, which would tell of another session's past.
	if err := os.RemoveAll(files.Dir); err != nil {
		return s.stateError("create session", err)
	}
	if err := makeDir(files.Dir); err != nil {
		return s.stateError("create session", err)
	}
	return s.saveSession(sess)
}

// notNested refuses a slave on this host inside its master, or the reverse. What is reached over SSH is the agent's to
// compare.
func notNested(master Volume, slave Slave) error {
	if !slave.Local() {
		return nil
	}
	path, err := resolvePart(slave.Path)
	if err != nil {
		return fmt.Errorf("slave %q: %w", slave, err)
	}
	switch {
	case path == master.Path || sameDir(path, master.Path):
		return kindf(ErrOverlap, "the slave %q is its master's own directory: choose another one", slave)
	case within(path, master.Path):
		return kindf(ErrOverlap, "the slave %q is inside its master %q and would be replicated into itself: choose a "+
			"directory outside", slave, master.Path)
	case within(master.Path, path):
		return kindf(ErrOverlap, "the slave %q contains its master %q, which would be purged as stale: choose a "+
			"directory apart", slave, master.Path)
	}
	return nil
}

// Session returns the session of a master volume and a slave, or ErrNoSession.
func (s *Store) Session(master string, slave Slave) (Session, error) {
	if err := CheckName(master); err != nil {
		return Session{}, err
	}
	sess, err := s.loadSession(s.Files(master, slave).Session)
	if errors.Is(err, fs.ErrNotExist) {
		return Session{}, kindf(ErrNoSession, "no session %s to %q: make it with georep create %s %s, or see georep status",
			master, slave, master, slave)
	}
	if err == nil && (sess.Master != master || sess.Slave != slave) {
		return Session{}, fmt.Errorf("read %s: it is of session %s to %q", s.Files(master, slave).Session, sess.Master,
			sess.Slave)
	}
	return sess, err
}

// Sessions returns all sessions, those of one master together. Where one cannot be read, the others are returned beside
// the error.
func (s *Store) Sessions() ([]Session, error) {
	names, err := s.names(s.sessionsDir())
	if err != nil {
		return nil, err
	}
	var list []Session
	var errs []error
	for _, n := range names {
		sess, err := s.loadSession(filepath.Join(s.sessionsDir(), n, "session.toml"))
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			list = append(list, sess)
		}
	}
	return list, errors.Join(errs...)
}

// UpdateSession changes a session under the registry's lock and returns it as saved. The change
// must leave master, slave and UUID alone. If change fails nothing is saved. change runs with the
// lock held, so it must not call the Store.
func (s *Store) UpdateSession(master string, slave Slave, change func(*Session) error) (Session, error) {
	var sess Session
	err := s.locked(func() error {
		old, err := s.Session(master, slave)
		if err != nil {
			return err
		}
		sess = old.Clone()
		if err := change(&sess); err != nil {
			return err
		}
		if sess.Master != old.Master || sess.Slave != old.Slave || sess.UUID != old.UUID {
			return fmt.Errorf("update session %s to %q: master, slave and uuid cannot change", master, slave)
		}
		return s.saveSession(sess)
	})
	return sess, err
}

// DeleteSession forgets a session with its status and logs; master and slave keep their data. It
// refuses with ErrSessionBusy while the monitor runs. The slave keeps its data and its .georep; a
// session that is created again goes on with it.
func (s *Store) DeleteSession(master string, slave Slave) error {
	return s.locked(func() error {
		if _, err := s.Session(master, slave); err != nil {
			return err
		}
		files := s.Files(master, slave)
		// Holding the pid file keeps a monitor from starting on files that are about to go.
		pid, err := TryLock(files.Pid, Exclusive)
		if errors.Is(err, ErrLocked) {
			return kindf(ErrSessionBusy, "session %s to %q is running: stop it first with georep stop %s %s",
				master, slave, master, slave)
		}
		if err != nil {
			return s.stateError("delete session", err)
		}
		defer pid.Close()
		// The session's own file goes first: what a crash leaves of the rest belongs to no session, and addSession
		// clears it.
		if err := removeDurable(files.Session); err != nil {
			return s.stateError("delete session", err)
		}
		return os.RemoveAll(files.Dir)
	})
}

// saveSession writes the session's file. The caller holds the registry's lock.
func (s *Store) saveSession(sess Session) error {
	f := sessionFile{
		Master: sess.Master, Slave: sess.Slave.String(), UUID: sess.UUID, Created: sess.Created,
		Started: sess.Started, Paused: sess.Paused, SlaveID: sess.SlaveID, Managed: sess.Managed.text(), Config: map[string]string{},
	}
	for k, v := range sess.Config {
		f.Config[k] = toText(v)
	}
	return s.save(s.Files(sess.Master, sess.Slave).Session, f)
}

// loadSession checks what it reads, since names in it become paths and command lines. A file that
// was edited by hand into something invalid is an error that names it.
func (s *Store) loadSession(path string) (Session, error) {
	var f sessionFile
	if err := s.load(path, &f); err != nil {
		return Session{}, err
	}
	slave, err := ParseSlave(f.Slave)
	if err == nil {
		err = CheckName(f.Master)
	}
	if err != nil {
		return Session{}, fmt.Errorf("read %s: %w", path, err)
	}
	sess := Session{
		Master: f.Master, Slave: slave, UUID: f.UUID, Created: f.Created.UTC(),
		Started: f.Started, Paused: f.Paused, SlaveID: f.SlaveID, Config: map[string]string{},
	}
	if sess.Managed, err = f.Managed.parse(); err != nil {
		return Session{}, fmt.Errorf("read %s: managed: %w", path, err)
	}
	for k, v := range f.Config {
		if sess.Config[CurrentName(k)], err = fromText(v); err != nil {
			return Session{}, fmt.Errorf("read %s: %s: %w", path, k, err)
		}
	}
	return sess, nil
}
