package gluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Volume is a started volume of two replica pairs: bricks 0 and 1, 2 and 3.
type Volume struct {
	*Cluster
	Name   string
	bricks int
}

// Volume makes and starts a volume with these options, each "key value".
func (c *Cluster) Volume(name string, options ...string) *Volume {
	c.t.Helper()
	v := &Volume{c, name, 4}
	args := []string{"volume", "create", name, "replica", "2"}
	for i := range v.bricks {
		if err := os.MkdirAll(filepath.Dir(v.Brick(i)), 0o755); err != nil {
			c.t.Fatal(err)
		}
		args = append(args, Host+":"+v.Brick(i))
	}
	c.Run(append(args, "force")...)
	for _, o := range options {
		c.Run(append([]string{"volume", "set", name}, strings.Fields(o)...)...)
	}
	c.Run("volume", "start", name)
	return v
}

// Brick is the directory of a brick.
func (v *Volume) Brick(i int) string { return v.at(fmt.Sprintf("bricks/%s-%d/brick", v.Name, i)) }

// Kill kills a brick's process, as the loss of its host does but for the connections, which are closed.
func (v *Volume) Kill(i int) {
	name := Host + strings.ReplaceAll(v.Brick(i), "/", "-") + ".pid"
	end(v.t, v.at(filepath.Join("run/vols", v.Name, name)), "glusterfs", unix.SIGKILL)
}

// Restart starts the bricks that were killed.
func (v *Volume) Restart() { v.Run("volume", "start", v.Name, "force") }

// All are the options of a mount that keeps and shows all that the volume can keep, as trusted xattrs and default ACLs. What is changed by it
// is marked. It keeps nothing in a cache, so that it shows what the bricks have.
func All() []string {
	return []string{"--client-pid=-4", "--capability", "--attribute-timeout=0", "--entry-timeout=0",
		"--xlator-option=*-md-cache.md-cache-timeout=0", "--xlator-option=*-quick-read.max-file-size=0"}
}

// Mount mounts the volume as its users do, or with more options, at a new directory, which it returns.
func (v *Volume) Mount(t testing.TB, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "mnt")
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "glusterfs", append(options, "--volfile-server="+Host, "--volfile-id="+v.Name, "--acl", "-l", filepath.Join(dir, "log"),
		"-p", filepath.Join(dir, "pid"), at)...)
	t.Cleanup(func() {
		_ = unix.Unmount(at, unix.MNT_DETACH)
		end(t, filepath.Join(dir, "pid"), "glusterfs", unix.SIGTERM)
	})
	within(t, "the volume is mounted", func() bool {
		var st unix.Stat_t
		return unix.Stat(at, &st) == nil && st.Ino == 1
	})
	return at
}
