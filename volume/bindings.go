package volume

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// Binding says which master a login on the slave's host was first used for.
type Binding struct {
	Master string    `toml:"master"` // uuid
	Since  time.Time `toml:"since"`
}

// bindingsFile is the file, which has all logins.
type bindingsFile struct {
	Bindings map[string]Binding `toml:"bindings"`
}

// Bind gives the master that a login is bound to; the first one that asks is it, durably, before
// Bind returns. The login is any name that tells one from another. A binding that is there
// is never changed.
func (s *Store) Bind(login, master string) (Binding, error) {
	if b, err := s.bound(login); err != nil || b.Master != "" {
		return b, err
	}
	var b Binding
	err := s.locked(func() error {
		f, err := s.loadBindings()
		if err != nil {
			return err
		}
		if b = f.Bindings[login]; b.Master != "" {
			return nil // another process was quicker
		}
		b = Binding{Master: master, Since: time.Now().UTC().Truncate(time.Second)}
		f.Bindings[login] = b
		return s.save(s.bindingsFile(), f)
	})
	return b, err
}

// Bound gives the master that a login is bound to, and binds none.
func (s *Store) Bound(login string) (Binding, error) { return s.bound(login) }

// bound gives the zero Binding where there is none. It takes no lock, since the file is replaced as
// a whole.
func (s *Store) bound(login string) (Binding, error) {
	f, err := s.loadBindings()
	return f.Bindings[login], err
}

// A file that is not there has no bindings. One that is damaged is an error, and binds nobody.
func (s *Store) loadBindings() (f bindingsFile, err error) {
	err = s.load(s.bindingsFile(), &f)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if f.Bindings == nil {
		f.Bindings = map[string]Binding{}
	}
	return f, err
}

func (s *Store) bindingsFile() string { return filepath.Join(s.dir, "bindings.toml") }
