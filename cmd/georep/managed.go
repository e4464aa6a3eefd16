package main

import (
	"errors"
	"fmt"
	"io/fs"

	"georep/internal/config"
	"georep/volume"
)

// errManaged refuses a change by hand to what a configuration file says: the next apply would take it back.
var errManaged = errors.New("a configuration file says so")

// sessionFree refuses to change a session that a configuration file still names.
func sessionFree(s *volume.Store, session volume.Session) error {
	v, err := s.Volume(session.Master)
	if err != nil {
		return err
	}
	err = free(s, session.Managed, func(d config.Desired) (config.Place, bool) {
		if named := d.Session(v, session.Slave); named != nil {
			return named.Place, true
		}
		return config.Place{}, false
	})
	if err != nil {
		return fmt.Errorf("session %s to %q: %w", session.Master, session.Slave, err)
	}
	return nil
}

// volumeFree is sessionFree for a volume.
func volumeFree(s *volume.Store, v volume.Volume) error {
	err := free(s, v.Managed, func(d config.Desired) (config.Place, bool) {
		if named := d.Volume(v.Name); named != nil {
			return named.Place, true
		}
		return config.Place{}, false
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

// free asks the file as it is now: lines move, and what it names no more anybody may change.
func free(s *volume.Store, m volume.Managed, named func(config.Desired) (config.Place, bool)) error {
	if m == (volume.Managed{}) {
		return nil
	}
	at := m.At
	want, err := loadConfig(s, m.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		place, ok := named(want)
		if !ok {
			return nil
		}
		at = place.String()
	}
	return fmt.Errorf("%w, in %s: change it there, and run georep apply --config %s", errManaged, at, m.Config)
}

// loadConfig reads a configuration for a registry.
func loadConfig(s *volume.Store, path string) (config.Desired, error) {
	volumes, err := s.Volumes()
	if err != nil {
		return config.Desired{}, err
	}
	known := map[string]string{}
	for _, v := range volumes {
		known[v.Name] = v.Path
	}
	return config.Load(path, known)
}
