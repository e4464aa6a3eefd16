package connect

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"georep/internal/beneath"
	"georep/slave"
)

// ErrOverlap means that master and slave lie within each other, or are the same directory.
var ErrOverlap = errors.New("master and slave overlap")

// apart refuses a slave within its master and the reverse, by whatever paths or mounts they are
// reached: it compares what the directories are, not what they are called. A slave that does not
// say where it lies, or runs under another kernel, is taken for apart.
func apart(master string, there slave.Info) error {
	if boot, err := BootID(); err != nil || boot != there.Identity.BootID || len(there.Identity.Ancestors) == 0 {
		return err
	}
	above, err := Ancestors(master)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(there.Identity.Ancestors, above[0]):
		return fmt.Errorf("%w: the slave %s lies in its master %s, and would be replicated into itself; choose a "+
			"directory outside", ErrOverlap, there.Path, master)
	case slices.Contains(above, there.Identity.Ancestors[0]):
		return fmt.Errorf("%w: the master %s lies in its slave %s, where it would be purged; choose a directory outside",
			ErrOverlap, master, there.Path)
	}
	return nil
}

// BootID names the running kernel: two roots can only be the same place under the same kernel.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// Ancestors identifies the directory at path, and each one above it up to /.
func Ancestors(path string) (out []beneath.Identity, err error) {
	path, err = filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	for {
		d, err := beneath.OpenRoot(path, false)
		if err != nil {
			return nil, err
		}
		id, err := d.Identity()
		d.Close()
		if err != nil {
			return nil, err
		}
		out = append(out, id)
		if path == "/" {
			return out, nil
		}
		path = filepath.Dir(path)
	}
}
