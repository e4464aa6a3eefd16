package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Checkpoint is a moment on the master. It is complete once the slave durably has everything that the master had then.
type Checkpoint struct {
	Name      string    `json:"name"`
	Time      time.Time `json:"time"`
	Completed time.Time `json:"completed,omitzero"` // when that was seen; zero: it is not
	// Unseen: but for what was written without an event by those whose open files could not be seen.
	Unseen bool `json:"unseen,omitempty"`
}

// MaxCheckpoints is how many a session may have.
const MaxCheckpoints = 64

// ErrNoCheckpoint: the session has none of that name.
var ErrNoCheckpoint = errors.New("no such checkpoint")

// Two files, so that each has one writer at a time: the registry's lock is over the one, the
// session's pid file over the other, which says what is complete. An entry of that counts for the
// checkpoint of the same name and time alone. What is wanted, and what is complete, are kept apart:
func (f *Files) checkpointsFile() string { return filepath.Join(f.Dir, "checkpoints") }
func (f *Files) completedFile() string   { return filepath.Join(f.Dir, "checkpoints.completed") }

// Checkpoints are a session's, oldest first.
func (f *Files) Checkpoints() ([]Checkpoint, error) {
	list, err := readCheckpoints(f.checkpointsFile())
	if err != nil || len(list) == 0 {
		return nil, err
	}
	done, err := readCheckpoints(f.completedFile())
	for i := range list {
		at := slices.IndexFunc(done, list[i].same)
		if at >= 0 {
			list[i].Completed, list[i].Unseen = done[at].Completed, done[at].Unseen
		}
	}
	return list, err
}

// same tells whether both are one moment under one name.
func (c *Checkpoint) same(o Checkpoint) bool { return o.Name == c.Name && o.Time.Equal(c.Time) }

// readCheckpoints gives none for a file that is not there.
func readCheckpoints(path string) (list []Checkpoint, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("read the checkpoints in %s: %w", path, err)
	}
	return list, nil
}

// CompleteCheckpoints notes, durably, which checkpoints are complete. The caller holds the session's pid file.
func (f *Files) CompleteCheckpoints(list []Checkpoint) error {
	done := slices.DeleteFunc(slices.Clone(list), func(c Checkpoint) bool { return c.Completed.IsZero() })
	data, err := json.Marshal(done)
	if err != nil {
		return err
	}
	return WriteOwn(f.completedFile(), data)
}

// SetCheckpoint sets a checkpoint, which takes the place of one of the same name. The time may lie
// in the future, or before the session began; it is compared with last_synced alone.
func (s *Store) SetCheckpoint(master string, slave Slave, name string, at time.Time) error {
	if err := CheckName(name); err != nil {
		return kindf(ErrSyntax, "%q is no name of a checkpoint: use 1 to %d of A-Z a-z 0-9 . _ -, not starting with . or -", name, maxName)
	}
	return s.changeCheckpoints(master, slave, func(list []Checkpoint) ([]Checkpoint, error) {
		list = slices.DeleteFunc(list, func(c Checkpoint) bool { return c.Name == name })
		if len(list) >= MaxCheckpoints {
			return nil, fmt.Errorf("session %s to %q has %d checkpoints already: delete one first", master, slave, len(list))
		}
		return append(list, Checkpoint{Name: name, Time: at.Round(0).UTC()}), nil
	})
}

// DeleteCheckpoint forgets one; ErrNoCheckpoint where there is none of that name.
func (s *Store) DeleteCheckpoint(master string, slave Slave, name string) error {
	return s.changeCheckpoints(master, slave, func(list []Checkpoint) ([]Checkpoint, error) {
		left := slices.DeleteFunc(slices.Clone(list), func(c Checkpoint) bool { return c.Name == name })
		if len(left) == len(list) {
			return nil, kindf(ErrNoCheckpoint, "session %s to %q has no checkpoint %q: see georep checkpoint --list", master, slave, name)
		}
		return left, nil
	})
}

// changeCheckpoints replaces the list, under the registry's lock. An error of change leaves the
// list as it was. ErrNoSession where the session is not there.
func (s *Store) changeCheckpoints(master string, slave Slave, change func([]Checkpoint) ([]Checkpoint, error)) error {
	return s.locked(func() error {
		if _, err := s.Session(master, slave); err != nil {
			return err
		}
		files := s.Files(master, slave)
		list, err := readCheckpoints(files.checkpointsFile())
		if err != nil {
			return err
		}
		if list, err = change(list); err != nil {
			return err
		}
		data, err := json.Marshal(list)
		if err != nil {
			return err
		}
		if err := writeDurable(files.checkpointsFile(), data); err != nil {
			return s.stateError("set the checkpoint", err)
		}
		return nil
	})
}
