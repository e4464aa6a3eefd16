package volume

import (
	"fmt"
	"path/filepath"
	"strconv"

	"georep/marker/xtime"
)

// volume checks what the file says: a damaged registry must not make the root of the file system a volume.
func (f *volumeFile) volume() (Volume, error) {
	path, err := fromText(f.Path)
	if err != nil {
		return Volume{}, fmt.Errorf("volume %s: path: %w", f.Name, err)
	}
	v := Volume{
		Name: f.Name, UUID: f.UUID, Path: path, Created: f.Created.UTC(),
		RootGFID: f.RootGFID, FSID: f.FSID, Namespace: f.Namespace, Policy: f.Policy,
	}
	if v.Managed, err = f.Managed.parse(); err != nil {
		return Volume{}, fmt.Errorf("volume %s: managed: %w", f.Name, err)
	}
	if err := CheckName(v.Name); err != nil {
		return Volume{}, err
	}
	if _, err := xtime.ParseUUID(v.UUID); err != nil {
		return Volume{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if !filepath.IsAbs(v.Path) || filepath.Clean(v.Path) != v.Path {
		return Volume{}, fmt.Errorf("volume %s: its path %q is not absolute and clean", v.Name, v.Path)
	}
	if f.VolumeMark != "" {
		mark, err := strconv.ParseUint(f.VolumeMark, 16, 64)
		if err != nil {
			return Volume{}, fmt.Errorf("volume %s: volume mark: %w", v.Name, err)
		}
		v.VolumeMark = mark
	}
	return v, nil
}

// Runtime names the files that a volume's marker process and its users share while they run. They are the marker's
// and its users' meeting point: the locks decide, the rest is for the operator. All are absolute.
type Runtime struct {
	// Dir lives from the first use of a marker to DeleteVolume.
	Dir          string
	MarkerLock   string // held exclusively by the marker process
	UsersLock    string // held shared by everyone who needs the marker; it ends when it can take it exclusively
	MarkerStatus string // what the marker says of itself, JSON
	MarkerLog    string
	MarkerStderr string // of the marker process that was started last
	AgentLog     string // what masters did with the volume as a slave, JSON lines
}

// Runtime returns the names; it makes nothing. The name is a volume's.
func (s *Store) Runtime(name string) Runtime {
	dir := filepath.Join(s.VolumesDir(), name+".d")
	return Runtime{
		Dir:          dir,
		MarkerLock:   filepath.Join(dir, "marker.lock"),
		UsersLock:    filepath.Join(dir, "users.lock"),
		MarkerStatus: filepath.Join(dir, "marker.status"),
		MarkerLog:    filepath.Join(dir, "marker.log"),
		MarkerStderr: filepath.Join(dir, "marker.stderr"),
		AgentLog:     filepath.Join(dir, "agent", "log"),
	}
}

// AgentLog is the log of what masters did with slaves that are no volumes. The method makes nothing.
func (s *Store) AgentLog() string { return filepath.Join(s.dir, "agent", "log") }

// MakeRuntime is Runtime that makes the directory first. The volume must exist.
func (s *Store) MakeRuntime(name string) (Runtime, error) {
	if _, err := s.Volume(name); err != nil {
		return Runtime{}, err
	}
	r := s.Runtime(name)
	if err := makeDir(r.Dir); err != nil {
		return Runtime{}, s.stateError("volume "+name, err)
	}
	return r, nil
}
