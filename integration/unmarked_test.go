package integration

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/marker"
	"georep/status"
)

// TestNoRoomForAMark: what changes below a directory whose xattrs leave no room for a mark arrives, as does a file of that
// kind; LastSynced goes on, and the status names both until there is room.
func TestNoRoomForAMark(t *testing.T) {
	for name, c := range map[string]struct{ hints, source string }{
		"fanotify": {"on", marker.SourceFanotify}, "inotify": {"on", marker.SourceInotify}, "scan": {"on", marker.SourceScan},
		"without hints": {"off", marker.SourceFanotify},
	} {
		t.Run(name, func(t *testing.T) {
			master, _ := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
			s := newSession(t, master, fstest.Mount(t, fstest.XFS, fstest.Options{}))
			full, sub := filepath.Join(master, "full"), filepath.Join(master, "full", "sub")
			if err := os.MkdirAll(sub, 0o755); err != nil {
				t.Fatal(err)
			}
			s.must(s.start("--hints", c.hints, "--marker-source", c.source))
			s.waitSynced()
			leaveNoRoom(t, full)
			for n := range 2 {
				writeFile(t, filepath.Join(sub, "f"), fmt.Sprint("round ", n))
				writeFile(t, filepath.Join(master, "beside"), fmt.Sprint("round ", n))
				s.waitSynced()
			}
			file := filepath.Join(master, "file")
			writeFile(t, file, "one")
			leaveNoRoom(t, file)
			s.waitSynced()
			s.waitStatus("file named", func(st status.Status) bool {
				return strings.Contains(strings.Join(st.Unmarked, " "), `"file": no space left on device`)
			})
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(unix.Removexattr(file, "user.k0"))
			must(unix.Removexattr(full, "user.k0"))
			writeFile(t, filepath.Join(sub, "f"), "with room")
			s.waitSynced()
			s.waitStatus("nothing named", func(st status.Status) bool { return len(st.Unmarked) == 0 })
			s.must(s.run("stop", s.masterArg, s.spec))
		})
	}
}

// leaveNoRoom sets xattrs until the inode of ext4 takes no more.
func leaveNoRoom(t *testing.T, path string) {
	t.Helper()
	n := 0
	for size := 2048; size >= 8; {
		err := unix.Setxattr(path, fmt.Sprintf("user.k%d", n), make([]byte, size), 0)
		switch {
		case err == nil:
			n++
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		default:
			t.Fatal(err)
		}
	}
}
