package fstest

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// MountSilent mounts a file system in user space at dir, as a user's own is mounted, whose daemon lives and never answers
// anything. Who asks it for something waits until the end of the test, or of the mount.
func MountSilent(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("/dev/fuse: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd)
	if err := unix.Mount("silent", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		t.Fatalf("mount a file system in user space on %s: %v", dir, err)
	}
	t.Cleanup(func() {
		unix.Close(fd) // who waits gets ENOTCONN
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
}
