package marker

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/integration/harness/fstest"
)

// TestRemovedDirectoriesAreLetGo: a directory that was removed, or whose place another has taken, is not kept open, or its
// file system could not become read-only.
func TestRemovedDirectoriesAreLetGo(t *testing.T) {
	for _, source := range sources() {
		for _, kind := range []string{fstest.Ext4, fstest.Btrfs} {
			t.Run(source+kind, func(t *testing.T) {
				v := newVol(t, fstest.Mount(t, kind, fstest.Options{}))
				v.o.Source = source
				v.start().quiet()
				v.sh("mkdir -p a e1 e2; for i in $(seq 60); do mkdir -p a/d$i/s; echo > a/d$i/s/f; done")
				v.quiet()
				v.sh("rm -r a; mv -T e1 e2")
				v.quiet()
				v.until("no directory that was removed is open", func() bool { return v.removedOpen() == 0 })
				v.sh("mount -o remount,ro .; mount -o remount,rw .")
				// Somebody is in one that is removed, and leaves later.
				v.sh("mkdir b; cd b; exec 9>f; echo x >&9; rmdir ../b 2>/dev/null || { rm f; rmdir ../b; }; echo y >&9; sleep 0.3; echo z >&9")
				v.until("nor one that somebody was in", func() bool { return v.removedOpen() == 0 })
				v.sh("mount -o remount,ro .; mount -o remount,rw .")
			})
		}
	}
}

// removedOpen counts the descriptors of this process on what was removed from the volume.
func (v *vol) removedOpen() int {
	v.t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		v.t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%s", fd.Name())) // it may be closed by now
		if strings.HasPrefix(path, filepath.Clean(v.o.Root)+"/") && strings.HasSuffix(path, " (deleted)") {
			n++
		}
	}
	return n
}
