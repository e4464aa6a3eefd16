package config

import (
	"fmt"
	"os"
	"path/filepath"

	"georep/volume"
)

// Session finds what the files say of a session of the registry; nil where they do not name it. A
// master that is given as a path is found by what the path leads to.
func (d Desired) Session(master volume.Volume, slave volume.Slave) *Session {
	for i := range d.Sessions {
		s := &d.Sessions[i]
		if s.Slave == slave && (s.Master.Name == master.Name || s.Master.Path != "" && resolved(s.Master.Path) == master.Path) {
			return s
		}
	}
	return nil
}

// Volume finds what the files say of a volume; nil where they do not name it.
func (d Desired) Volume(name string) *Volume {
	for i := range d.Volumes {
		if d.Volumes[i].Name == name {
			return &d.Volumes[i]
		}
	}
	return nil
}

// Is tells whether a volume of the registry has the directory that the files want.
func (v Volume) Is(have volume.Volume) bool {
	return filepath.Clean(v.Path) == have.Path || resolved(v.Path) == have.Path
}

// resolved is a path without symbolic links, where it is there.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// Missing says which directories of masters and volumes are not there now, such as those that are not mounted, and which files of
// the web server cannot be used.
func (d Desired) Missing() (out Problems) {
	for _, v := range d.Volumes {
		out = append(out, missing(v.Place, v.Path)...)
	}
	for _, s := range d.Sessions {
		if s.Master.Path != "" {
			out = append(out, missing(s.Place, s.Master.Path)...)
		}
	}
	if d.Web != nil {
		if err := d.Web.Files(); err != nil {
			out = append(out, Problem{d.Web.Place, err.Error()})
		}
	}
	return out
}

// missing is the problem of a directory that is not there, or is none.
func missing(at Place, path string) Problems {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return Problems{{at, fmt.Sprintf("the directory %q is not there (%v): make or mount it, or correct the path", path, cause(err))}}
	case !info.IsDir():
		return Problems{{at, fmt.Sprintf("%q is no directory: a volume is a directory tree", path)}}
	}
	return nil
}
