package integration

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
)

// TestSilentMount: a user's file system in user space, whose daemon never answers, lies below the master's root when the
// session begins, or comes while it runs; nobody who looks at the tree may wait for it.
func TestSilentMount(t *testing.T) {
	for _, source := range []string{"fanotify", "inotify", "scan"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			top := fstest.Mount(t, fstest.Ext4, fstest.Options{})
			master, slave := twoSides(t, top)
			s := newSession(t, master, slave)
			write := func(name string) {
				t.Helper()
				path := filepath.Join(master, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			arrived := func(name string) {
				t.Helper()
				if got, err := os.ReadFile(filepath.Join(slave, name)); string(got) != name {
					t.Fatalf("%s is %q on the slave, %v", name, got, err)
				}
			}
			for _, name := range []string{"home/first/hidden", "home/later/hidden", "home/beside"} {
				write(name)
			}
			fstest.MountSilent(t, filepath.Join(master, "home/first"))
			s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
			s.must(s.run("config", s.masterArg, s.spec, "marker-source", source))
			s.must(s.run("start", s.masterArg, s.spec))
			s.waitNow()
			arrived("home/beside")

			fstest.MountSilent(t, filepath.Join(master, "home/later"))
			write("home/after")
			s.waitNow()
			arrived("home/after")

			s.must(s.run("stop", s.masterArg, s.spec))
			write("home/stopped")
			s.must(s.run("sync", s.masterArg, s.spec))
			arrived("home/stopped")
			s.must(s.run("verify", s.masterArg, s.spec))

			for _, name := range []string{"home/first", "home/later"} {
				if err := unix.Unmount(filepath.Join(master, name), unix.MNT_DETACH); err != nil {
					t.Fatal(err)
				}
			}
			s.must(s.run("start", s.masterArg, s.spec))
			s.waitNow()
			s.equal()
		})
	}
}
