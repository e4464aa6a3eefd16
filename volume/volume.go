package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"georep/marker/xtime"
)

// Volume is a directory tree with a name. It is a plain value: changing it changes nothing until UpdateVolume.
type Volume struct {
	Name       string    `json:"name"`
	UUID       string    `json:"uuid"`                  // of the volume, as xtime.UUID prints it; part of every xattr name
	Path       string    `json:"path"`                  // absolute, clean, without symbolic links; any bytes
	Created    time.Time `json:"created"`               // UTC
	RootGFID   string    `json:"root_gfid,omitempty"`   // of the directory as it was when it became a volume
	FSID       string    `json:"fsid,omitempty"`        // of its file system then
	Namespace  string    `json:"namespace,omitempty"`   // of the xattrs: "trusted", "user", or "" before the first probe
	VolumeMark uint64    `json:"volume_mark,omitempty"` // an xtime.Time: indexing was switched on then; 0 before
	// Policy is what a master may do with the volume as a slave: values of package policy by name. Nil allows all.
	Policy  map[string]string `json:"policy,omitempty"`
	Managed Managed           `json:"managed,omitzero"`
}

// volumeFile is Volume as the file has it.
type volumeFile struct {
	Name       string    `toml:"name"`
	UUID       string    `toml:"uuid"`
	Path       string    `toml:"path"` // by toText
	Created    time.Time `toml:"created"`
	RootGFID   string    `toml:"root_gfid,omitempty"`
	FSID       string    `toml:"fsid,omitempty"`
	Namespace  string    `toml:"namespace,omitempty"`
	VolumeMark string    `toml:"volume_mark,omitempty"` // hexadecimal: TOML's integers end at 2^63, in 2038

	Managed Managed           `toml:"managed,omitzero"`
	Policy  map[string]string `toml:"policy,omitempty"`
}

// NewVolume says what CreateVolume shall make; RootGFID and FSID are the caller's to find out, and may be set later.
type NewVolume struct {
	Name     string
	Path     string
	RootGFID string
	FSID     string
}

// CreateVolume makes a directory a volume, with a new UUID, and returns it. The path is resolved. It refuses a malformed
// name (ErrSyntax), a path that is no directory, a name or directory that is taken (ErrVolumeExists, naming the volume)
// and a directory within another volume or the reverse (ErrOverlap).
func (s *Store) CreateVolume(n NewVolume) (Volume, error) {
	if err := CheckName(n.Name); err != nil {
		return Volume{}, err
	}
	path, err := ResolveDir(n.Path)
	if err != nil {
		return Volume{}, err
	}
	v := Volume{
		Name: n.Name, UUID: xtime.NewUUID().String(), Path: path, Created: time.Now().UTC().Truncate(time.Second),
		RootGFID: n.RootGFID, FSID: n.FSID,
	}
	err = s.locked(func() error { return s.addVolume(v) })
	if err != nil {
		return Volume{}, err
	}
	return v, nil
}

// addVolume runs under the lock, so that no overlapping volume is made at the same moment.
func (s *Store) addVolume(v Volume) error {
	if _, err := os.Lstat(s.volumeFile(v.Name)); err == nil {
		return kindf(ErrVolumeExists, "volume %s exists already: choose another name, or see georep volume info %s",
			v.Name, v.Name)
	}
	// It changes as long as a session runs, so the slave would never be in step.
	if within(s.dir, v.Path) {
		return kindf(ErrOverlap, "the state directory %q is inside %q and would be replicated with it: move it with "+
			"--state-dir or GEOREP_STATE_DIR", s.dir, v.Path)
	}
	others, err := s.Volumes()
	if err != nil {
		return err
	}
	for _, o := range others {
		if err := apart(v.Path, o); err != nil {
			return err
		}
	}
	return s.saveVolume(v)
}

// apart refuses a path that shares a tree with volume o.
func apart(path string, o Volume) error {
	switch {
	case path == o.Path || sameDir(path, o.Path):
		return kindf(ErrVolumeExists, "%q is volume %s already: use that name", path, o.Name)
	case within(path, o.Path):
		return kindf(ErrOverlap, "%q is inside volume %s (%q): volumes must not overlap, replicate that volume or "+
			"delete it first", path, o.Name, o.Path)
	case within(o.Path, path):
		return kindf(ErrOverlap, "%q contains volume %s (%q): volumes must not overlap, delete that volume first or "+
			"choose another directory", path, o.Name, o.Path)
	}
	return nil
}

// Volume returns the volume of that name, or ErrNoVolume.
func (s *Store) Volume(name string) (Volume, error) {
	if err := CheckName(name); err != nil {
		return Volume{}, err
	}
	var f volumeFile
	err := s.load(s.volumeFile(name), &f)
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, kindf(ErrNoVolume, "no volume %s here: see georep volume list, or make it with georep volume "+
			"create %s PATH", name, name)
	}
	if err != nil {
		return Volume{}, err
	}
	return f.volume()
}

// Volumes returns all volumes by name. Where a file cannot be read, the others are returned beside the error.
func (s *Store) Volumes() ([]Volume, error) {
	names, err := s.names(s.VolumesDir())
	if err != nil {
		return nil, err
	}
	var list []Volume
	var errs []error
	for _, n := range names {
		name, ok := strings.CutSuffix(n, ".toml")
		if !ok {
			continue
		}
		v, err := s.Volume(name)
		switch {
		case errors.Is(err, ErrNoVolume): // deleted meanwhile
		case err != nil:
			errs = append(errs, err)
		default:
			list = append(list, v)
		}
	}
	return list, errors.Join(errs...)
}

// VolumeByPath returns the volume whose directory path is, or ErrNoVolume. The path is resolved first.
func (s *Store) VolumeByPath(path string) (Volume, error) {
	resolved, err := ResolveDir(path)
	if err != nil {
		return Volume{}, err
	}
	list, err := s.Volumes()
	if err != nil {
		return Volume{}, err
	}
	for _, v := range list {
		if v.Path == resolved || sameDir(v.Path, resolved) {
			return v, nil
		}
	}
	return Volume{}, kindf(ErrNoVolume, "%q is no volume: make it one with georep volume create NAME PATH", resolved)
}

// UpdateVolume changes a volume under the registry's lock and returns it as saved. The change must leave the name, the
// UUID and the path alone. If change fails nothing is saved.
func (s *Store) UpdateVolume(name string, change func(*Volume) error) (Volume, error) {
	var v Volume
	err := s.locked(func() error {
		old, err := s.Volume(name)
		if err != nil {
			return err
		}
		v = old
		v.Policy = maps.Clone(old.Policy)
		if err := change(&v); err != nil {
			return err
		}
		if v.Name != old.Name || v.UUID != old.UUID || v.Path != old.Path {
			return fmt.Errorf("update volume %s: name, uuid and path cannot change", name)
		}
		return s.saveVolume(v)
	})
	return v, err
}

// DeleteVolume forgets a volume; its directory and the xattrs in it stay. It refuses with ErrVolumeBusy while a session
// uses it or its marker runs.
func (s *Store) DeleteVolume(name string) error {
	return s.locked(func() error {
		if _, err := s.Volume(name); err != nil {
			return err
		}
		if err := s.unused(name); err != nil {
			return err
		}
		// First the record, then what its marker left: a crash in between leaves files that nobody looks at.
		if err := removeDurable(s.volumeFile(name)); err != nil {
			return s.stateError("delete volume "+name, err)
		}
		return os.RemoveAll(s.Runtime(name).Dir)
	})
}

// unused refuses where a session, a marker or a one-shot sync uses the volume.
func (s *Store) unused(name string) error {
	sessions, err := s.Sessions()
	if err != nil {
		return err
	}
	for _, sess := range sessions {
		if sess.Master == name {
			return kindf(ErrVolumeBusy, "volume %s is replicated to %q: delete that session first with georep delete %s %s",
				name, sess.Slave, name, sess.Slave)
		}
	}
	for _, lock := range []string{s.Runtime(name).MarkerLock, s.Runtime(name).UsersLock} {
		busy, err := Locked(lock, Exclusive)
		if err != nil {
			return err
		}
		if busy {
			return kindf(ErrVolumeBusy, "volume %s is in use by its marker or a sync: wait for it to end and try again",
				name)
		}
	}
	return nil
}

// volumeFile is the volume's path in the registry; the name is a valid one.
func (s *Store) volumeFile(name string) string { return filepath.Join(s.VolumesDir(), name+".toml") }

// saveVolume writes the volume's file. The caller holds the registry's lock.
func (s *Store) saveVolume(v Volume) error {
	f := volumeFile{
		Name: v.Name, UUID: v.UUID, Path: toText(v.Path), Created: v.Created,
		RootGFID: v.RootGFID, FSID: v.FSID, Namespace: v.Namespace, Policy: v.Policy, Managed: v.Managed.text(),
	}
	if v.VolumeMark != 0 {
		f.VolumeMark = fmt.Sprintf("%016x", v.VolumeMark)
	}
	return s.save(s.volumeFile(v.Name), f)
}
