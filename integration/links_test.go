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

// price is what a change may cost: content in bytes, which each crawl that meets it half written sends again, and other bytes
// on the wire, once and for each crawl that sees the change. How many crawls do is a matter of how long the change takes beside
// them, and nothing that is promised.
type price struct{ content, once, crawl int64 }

// listing is what a crawl may send and receive for directories with as many entries together.
func listing(entries int) int64 { return 4<<10 + int64(entries)*100 }

func (p price) check(t testing.TB, what string, c status.Synced) {
	t.Helper()
	t.Logf("%s: %d bytes of content in %d files, %d bytes on the wire in %d crawls", what, c.BytesContent, c.Files, c.BytesWire, c.Crawls)
	content := p.content * (1 + c.Crawls)
	if wire := content + p.once + c.Crawls*p.crawl; c.BytesContent > content || c.BytesWire > wire {
		t.Errorf("%s: %d bytes of content in %d crawls, at most %d were to be sent; %d on the wire, at most %d", what,
			c.BytesContent, c.Crawls, content, c.BytesWire, wire)
	}
}

// costs waits for the slave to be equal after a change, and checks what that took.
func (s *session) costs(what string, p price, change func()) {
	s.t.Helper()
	before := s.cost()
	change()
	s.waitSynced()
	after := s.cost()
	p.check(s.t, what, status.Synced{Crawls: after.Crawls - before.Crawls, Files: after.Files - before.Files,
		BytesWire: after.BytesWire - before.BytesWire, BytesContent: after.BytesContent - before.BytesContent})
}

// nothingDeferred has crawls look after the names of inodes that lost some. That is left to the next crawl, whatever that one is for.
func (s *session) nothingDeferred() {
	s.t.Helper()
	for n := 0; ; n++ {
		owed, err := os.ReadDir(filepath.Join(s.slave, ".georep", "pending"))
		if err != nil {
			s.t.Fatal(err)
		}
		if len(owed) == 0 {
			return
		}
		if n == 20 {
			s.t.Fatalf("after %d crawls the names of %d inodes are still to be looked after", n, len(owed))
		}
		s.shell("date >> crawled")
		s.waitSynced()
	}
}

// TestLinkedTrees: copies of a tree by links, and snapshots that are rotated as rsnapshot does it, cost what changes, by
// hints and without. That the groups of links are equal is judged each time.
func TestLinkedTrees(t *testing.T) {
	const size, kept, changed, perDir = 4096, 3, 20, 50
	rounds := number(t, "GEOREP_ROTATIONS", 1)
	files := number(t, "GEOREP_LINKED_FILES", 100)
	names := int64(files)
	// Each crawl may list all that changes, and look after the names of all inodes that lost one.
	crawl := listing(4*files) + names*700
	for _, hints := range []string{"on", "off"} {
		t.Run("hints "+hints, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			if err := os.Mkdir(filepath.Join(master, "daily.0"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := tree.Many(filepath.Join(master, "daily.0"), files, perDir, size); err != nil {
				t.Fatal(err)
			}
			s.shell("cp -a daily.0 source")
			s.must(s.start("--hints", hints, "--max-delete", "100"))
			s.waitSynced()
			for i := 1; i < kept; i++ {
				s.costs(fmt.Sprint("cp -al ", i), price{once: names * 600, crawl: crawl}, func() {
					s.shell(fmt.Sprintf("cp -al daily.0 daily.%d", i))
				})
			}
			for round := range rounds {
				// New are as many files in the source as in the snapshot.
				s.costs(fmt.Sprint("rotation ", round), price{2 * changed * (size + 100), names * 1200, crawl}, func() {
					s.shell(fmt.Sprintf("rm -rf daily.%d", kept-1))
					for i := kept - 1; i > 0; i-- {
						s.shell(fmt.Sprintf("mv daily.%d daily.%d", i-1, i))
					}
					s.shell("cp -al daily.1 daily.0")
					s.shell(fmt.Sprintf("ls source/d000000 | head -%d | while read f; do echo %d >> source/d000000/$f; done", changed, round))
					s.shell("rsync -a --delete source/ daily.0/")
				})
			}
			s.nothingDeferred()
			one := price{2 * size, 4 << 10, listing(2 * perDir)}
			s.costs("one name saved anew, another written through", one, func() {
				s.shell("f=daily.1/d000001/$(ls source/d000001 | head -1); echo saved > t; mv t $f")
				s.shell("echo more >> daily.1/d000001/$(ls source/d000001 | tail -1)")
			})
			s.costs("a directory of linked files renamed", price{once: names * 500, crawl: crawl}, func() { s.shell("mv daily.2 weekly.0") })
			s.must(s.run("stop", s.masterArg, s.spec))
			s.shell("cp -al weekly.0 monthly.0; mv daily.1 weekly.1; rm -rf daily.0")
			s.must(s.start())
			s.waitSynced()
			price{once: names * 1500, crawl: crawl}.check(t, "changed while nothing ran", s.cost())
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
			s.costs("live", price{once: 16 << 10, crawl: listing(20)}, func() { changes(0) })
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
