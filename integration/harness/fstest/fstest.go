// Package fstest mounts fresh file systems for tests: in a loop image, in memory, or as an overlay. It owns every mount
// and image it makes and takes them away when the test ends. It never touches a device or a mount of the machine.
//
// One test on one file system, and one test on each:
//
//	master := fstest.Mount(t, fstest.XFS, fstest.Options{Size: 1 << 30})
//
//	fstest.Each(t, func(t *testing.T, dir string) {
//		...
//	})
package fstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kinds of file system that Mount knows.
const (
	Ext4    = "ext4"
	XFS     = "xfs"
	Btrfs   = "btrfs"
	Tmpfs   = "tmpfs"
	Overlay = "overlay"
)

// All returns the kinds on which everything must work. Overlay is not among them: it has no fanotify.
func All() []string { return []string{Ext4, XFS, Btrfs, Tmpfs} }

// Options of a mount. The zero value is good for some 30,000 files.
type Options struct {
	// Size in bytes; 512 MiB when 0. Images are sparse, so only what is written costs. xfs needs 300 MiB.
	Size int64
	// Mkfs are further arguments for mkfs, MountOptions a further list for mount -o.
	Mkfs         []string
	MountOptions string
	// Lower fills the lower layer of an overlay before it is mounted, so that changes copy up. Other kinds ignore it.
	Lower func(dir string) error
}

// Mount makes a file system of that kind and returns the directory where it is mounted, empty. It is unmounted when
// the test ends. A machine that cannot do it (an ordinary user, no mkfs) skips the test with the reason; anything else
// that goes wrong fails it. Tests may mount in parallel.
func Mount(t testing.TB, kind string, opts Options) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skipf("fstest %s: mounting needs root", kind)
	}
	if opts.Size == 0 {
		opts.Size = 512 << 20
	}
	dir := t.TempDir()
	switch kind {
	case Tmpfs:
		return mountTmpfs(t, dir, opts)
	case Overlay:
		return mountOverlay(t, dir, opts)
	case Ext4, XFS, Btrfs:
		return mountImage(t, dir, kind, opts)
	}
	t.Fatalf("fstest: no kind of file system %q", kind)
	return ""
}

// Each runs test as a subtest on a fresh file system of every kind of All.
func Each(t *testing.T, test func(t *testing.T, dir string)) {
	for _, kind := range All() {
		t.Run(kind, func(t *testing.T) { test(t, Mount(t, kind, Options{})) })
	}
}

// mountTmpfs mounts a file system in memory.
func mountTmpfs(t testing.TB, dir string, opts Options) string {
	t.Helper()
	options := fmt.Sprintf("size=%d,mode=0755", opts.Size)
	return mount(t, filepath.Join(dir, "mnt"), "-t", "tmpfs", "-o", join(options, opts.MountOptions), "tmpfs")
}

// mountOverlay puts all three layers on one tmpfs.
func mountOverlay(t testing.TB, dir string, opts Options) string {
	t.Helper()
	layers := mount(t, filepath.Join(dir, "layers"),
		"-t", "tmpfs", "-o", fmt.Sprintf("size=%d,mode=0755", opts.Size), "tmpfs")
	for _, name := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(layers, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if opts.Lower != nil {
		if err := opts.Lower(filepath.Join(layers, "lower")); err != nil {
			t.Fatalf("fstest overlay: fill the lower layer: %v", err)
		}
	}
	options := fmt.Sprintf("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", layers, layers, layers)
	return mount(t, filepath.Join(dir, "mnt"), "-t", "overlay", "-o", join(options, opts.MountOptions), "overlay")
}

// mountImage makes a file system in a sparse image and mounts it through a loop device.
func mountImage(t testing.TB, dir, kind string, opts Options) string {
	t.Helper()
	image := filepath.Join(dir, kind+".img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, opts.Size); err != nil {
		t.Fatal(err)
	}
	args := append(mkfsArgs(kind), opts.Mkfs...)
	run(t, "mkfs."+kind, append(args, image)...)
	// A loop device made by mount frees itself with the last use; detaching is for the case that this did not happen.
	t.Cleanup(func() { detach(t, image) })
	mnt := mount(t, filepath.Join(dir, "mnt"), "-t", kind, "-o", join("loop", opts.MountOptions), image)
	// mkfs.ext4 makes it for fsck, which never comes here; tests want an empty tree.
	if err := os.Remove(filepath.Join(mnt, "lost+found")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return mnt
}

// mkfsArgs makes each mkfs quick and quiet and leaves the rest at its defaults, the inode size above all.
func mkfsArgs(kind string) []string {
	switch kind {
	case Ext4:
		return []string{"-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"}
	case XFS:
		return []string{"-q", "-K", "-f"}
	default:
		return []string{"-q", "-K", "-f"}
	}
}

// mount mounts at the new directory dir with the arguments of mount(8), of which the last is the source, and sees to
// the unmounting.
func mount(t testing.TB, dir string, args ...string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", append(args, dir)...)
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// unmount falls back on a lazy unmount, which leaves the mount to whoever still uses it, and says so.
func unmount(t testing.TB, dir string) {
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EINVAL) {
		return // The test unmounted it itself.
	}
	if err == nil {
		return
	}
	t.Logf("fstest: %s is still in use at the end of the test (%v); unmounting it lazily", dir, err)
	if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
		t.Errorf("fstest: unmount %s: %v", dir, err)
	}
}

// detach frees the loop devices that still show image.
func detach(t testing.TB, image string) {
	out, err := exec.Command("losetup", "--noheadings", "--output", "NAME", "--associated", image).Output()
	if err != nil {
		t.Logf("fstest: list the loop devices of %s: %v", image, err)
		return
	}
	for device := range strings.FieldsSeq(string(out)) {
		if err := exec.Command("losetup", "--detach", device).Run(); err != nil {
			t.Logf("fstest: detach %s: %v", device, err)
		}
	}
}

// run runs a command of the machine, and skips the test when there is none.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	path, err := lookup(name)
	if err != nil {
		t.Skipf("fstest: needs %s: run integration/setup.sh", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	switch {
	case err == nil:
	case strings.Contains(string(out), "unknown filesystem type"):
		t.Skipf("fstest: this kernel has no such file system: %s", strings.TrimSpace(string(out)))
	default:
		t.Fatalf("fstest: %s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// lookup also looks where daemons and mkfs live, which not every PATH names.
func lookup(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// join joins two lists of mount options, of which the second may be empty.
func join(options, more string) string {
	if more == "" {
		return options
	}
	return options + "," + more
}
