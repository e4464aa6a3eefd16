package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/tree"
	"georep/status"
)

// shell runs a command in the master's root.
func (s *session) shell(script string) {
	s.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = s.master
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// cost is what the worker has sent since it was started.
func (s *session) cost() status.Synced { return s.status().Synced }

// costs waits for the slave to be equal after a change, and checks what that took: content in bytes, and bytes on the
// wire.
func (s *session) costs(what string, content, wire int64, change func()) {
	s.t.Helper()
	before := s.cost()
	change()
	s.waitSynced()
	after := s.cost()
	sent, all := after.BytesContent-before.BytesContent, after.BytesWire-before.BytesWire
	s.t.Logf("%s: %d bytes of content in %d files, %d bytes on the wire", what, sent, after.Files-before.Files, all)
	if sent > content || all > wire {
		s.t.Errorf("%s: %d bytes of content, at most %d were to be sent; %d on the wire, at most %d", what, sent, content, all, wire)
	}
}

// TestLinkedTrees: copies of a tree by links, and snapshots that are rotated as rsnapshot does it, cost what changes, by
// hints and without. That the groups of links are equal is judged each time.
func TestLinkedTrees(t *testing.T) {
	const size, kept, changed = 4096, 3, 20
	rounds := number(t, "GEOREP_ROTATIONS", 1)
	files := number(t, "GEOREP_LINKED_FILES", 100)
	perName := int64(files) * 1500 // bytes on the wire for each name that changes
	for _, hints := range []string{"on", "off"} {
		t.Run("hints "+hints, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			if err := os.Mkdir(filepath.Join(master, "daily.0"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tree.Many(filepath.Join(master, "daily.0"), files, 50, size); err != nil {
				t.Fatal(err)
			}
			s.shell("cp -a daily.0 source")
			s.must(s.start("--hints", hints, "--max-delete", "100"))
			s.waitSynced()
			for i := 1; i < kept; i++ {
				s.costs(fmt.Sprint("cp -al ", i), 0, perName, func() { s.shell(fmt.Sprintf("cp -al daily.0 daily.%d", i)) })
			}
			for round := range rounds {
				// New are as many files in the source as in the snapshot; what is met while it is written is sent again.
				s.costs(fmt.Sprint("rotation ", round), 6*changed*(size+100), 4*perName, func() {
					s.shell(fmt.Sprintf("rm -rf daily.%d", kept-1))
					for i := kept - 1; i > 0; i-- {
						s.shell(fmt.Sprintf("mv daily.%d daily.%d", i-1, i))
					}
					s.shell("cp -al daily.1 daily.0")
					s.shell(fmt.Sprintf("ls source/d000000 | head -%d | while read f; do echo %d >> source/d000000/$f; done", changed, round))
					s.shell("rsync -a --delete source/ daily.0/")
				})
			}
			s.costs("one name saved anew, another written through", 4*size, 64<<10, func() {
				s.shell("f=daily.1/d000001/$(ls source/d000001 | head -1); echo saved > t; mv t $f")
				s.shell("echo more >> daily.1/d000001/$(ls source/d000001 | tail -1)")
			})
			s.costs("a directory of linked files renamed", 0, perName/3, func() { s.shell("mv daily.2 weekly.0") })
			s.must(s.run("stop", s.masterArg, s.spec))
			s.shell("cp -al weekly.0 monthly.0; mv daily.1 weekly.1; rm -rf daily.0")
			s.must(s.start())
			s.waitSynced()
			if c := s.cost(); c.BytesContent != 0 || c.BytesWire > 2*perName {
				t.Errorf("changed while nothing ran: %+v", c)
			}
		})
	}
}

// TestExchangesAndWhiteouts has what overlayfs does to its upper layer: entries exchanged, and moved with a whiteout left
// in their place; live, and while nothing runs.
func TestExchangesAndWhiteouts(t *testing.T) {
	for _, kind := range everywhere(fstest.XFS, fstest.Ext4, fstest.Btrfs) {
		t.Run(kind, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, kind, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			s.shell("mkdir -p a/sub b; for d in a a/sub b; do for f in 1 2 3; do head -c 100000 /dev/urandom > $d/$f; done; done")
			s.must(s.start("--max-delete", "100"))
			s.waitSynced()
			rename := func(from, to string, flags uint) {
				t.Helper()
				err := unix.Renameat2(unix.AT_FDCWD, filepath.Join(master, from), unix.AT_FDCWD, filepath.Join(master, to), flags)
				if err != nil {
					t.Fatalf("rename %s to %s: %v", from, to, err)
				}
			}
			changes := func(n int) {
				moved := fmt.Sprint("b/moved", n)
				rename("a/1", moved, unix.RENAME_WHITEOUT)     // a/1 is a whiteout now
				rename("a/1", "b/2", unix.RENAME_EXCHANGE)     // and moves
				rename("a/sub", "b/3", unix.RENAME_EXCHANGE)   // a directory and a file
				rename("b/3/1", "b/3/2", unix.RENAME_WHITEOUT) // over another
				rename("a", "b", unix.RENAME_EXCHANGE)         // two directories
				rename("b/2", "b/3", unix.RENAME_WHITEOUT)     // within a directory
				if err := unix.Mknod(filepath.Join(master, fmt.Sprint("gone", n)), unix.S_IFCHR, 0); err != nil {
					t.Fatal(err)
				}
			}
			s.costs("live", 0, 64<<10, func() { changes(0) })
			s.must(s.run("stop", s.masterArg, s.spec))
			s.shell("rm -rf a b gone0; mkdir -p a/sub b; for d in a a/sub b; do for f in 1 2 3; do head -c 100000 /dev/urandom > $d/$f; done; done")
			s.must(s.start())
			s.waitSynced()
			s.must(s.run("stop", s.masterArg, s.spec))
			changes(1)
			s.must(s.start())
			s.waitSynced()
			if c := s.cost(); c.BytesContent != 0 {
				t.Errorf("changed while nothing ran: %+v", c)
			}
		})
	}
}
