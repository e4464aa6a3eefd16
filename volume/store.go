package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	toml "github.com/pelletier/go-toml/v2"
)

// lockPatience bounds the wait for another process that changes the registry; changes take milliseconds.
const lockPatience = 10 * time.Second

// Store is the registry in one state directory. It holds nothing open and caches nothing; safe for concurrent use, also
// by several processes.
type Store struct {
	dir string
}

// OpenStore names the state directory. The directory need not exist: reading finds it empty, the first change makes it
// with mode 0700. A relative dir is taken from the working directory now.
func OpenStore(dir string) (*Store, error) {
	if dir == "" {
		return nil, kindf(ErrSyntax, "the state directory is empty: give --state-dir DIR or set GEOREP_STATE_DIR")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("state directory %s: %w", dir, err)
	}
	s := &Store{dir: abs}
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return nil, s.stateError("open the state directory", err)
	case !fi.IsDir():
		return nil, kindf(ErrSyntax, "the state directory %s is not a directory: choose another one with --state-dir "+
			"or GEOREP_STATE_DIR", abs)
	}
	return s, nil
}

// Dir returns the state directory, absolute.
func (s *Store) Dir() string { return s.dir }

// VolumesDir is the half of the registry where the volumes are.
func (s *Store) VolumesDir() string { return filepath.Join(s.dir, "volumes") }

// sessionsDir is the other half.
func (s *Store) sessionsDir() string { return filepath.Join(s.dir, "sessions") }

// locked runs change while no other process changes the registry. The state directory exists by then.
func (s *Store) locked(change func() error) error {
	for _, dir := range []string{s.VolumesDir(), s.sessionsDir()} {
		if err := makeDir(dir); err != nil {
			return s.stateError("make the state directory", err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	l, err := WaitLock(ctx, filepath.Join(s.dir, "lock"), Exclusive)
	if err != nil {
		return s.stateError("change the registry", err)
	}
	defer l.Close()
	return change()
}

// load decodes a TOML file. A missing file gives an error that is fs.ErrNotExist. Neither a lock nor a second look is
// needed: every file is replaced as a whole.
func (s *Store) load(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return s.stateError("read the registry", err)
	}
	if err := toml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w (the file is damaged: restore or remove it)", path, err)
	}
	return nil
}

// save encodes and writes a TOML file. The caller holds the lock.
func (s *Store) save(path string, from any) error {
	data, err := toml.Marshal(from)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := writeDurable(path, data); err != nil {
		return s.stateError("change the registry", err)
	}
	return nil
}

// names lists a directory of the registry without what is hidden; a missing one is empty.
func (s *Store) names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.stateError("read the registry", err)
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
