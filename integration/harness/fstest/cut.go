package fstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Disk is a file system on a block device whose power can be cut: the device is a file on a file system with reflinks, and
// a cut is a clone of that file, made while it is in use. The clone has every write that the device had completed at that
// moment, and none that came later. One goroutine may use a Disk at a time.
type Disk struct {
	// Dir is where it is mounted, whichever cut it was put back to.
	Dir string

	t      testing.TB
	kind   string
	store  string // where the images are: on a file system with reflinks
	outer  string // where the file system between is mounted, if there is one
	images int    // made so far: the number of the one in use
}

// NewDisk makes a file system of that kind (Ext4, XFS or Btrfs) on a device whose power can be cut, and takes it away at
// the end of the test.
//
// The device of a Disk that is not volatile has no write cache: a write that was completed is durable, asked for or not.
// What was never written, because nobody synced it, is lost; a missing flush goes unseen. A volatile one loses what was
// written since the last flush too, in whole or in part: between the file system and the device lies a file on another
// file system, whose page cache is the device's write cache, and only a flush (an fsync of that file) empties it for sure.
func NewDisk(t testing.TB, kind string, volatile bool, size int64) *Disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("fstest: mounting needs root")
	}
	dir := t.TempDir()
	d := &Disk{t: t, kind: kind, Dir: filepath.Join(dir, "disk"),
		store: Mount(t, XFS, Options{Size: 16 * size, Mkfs: []string{"-m", "reflink=1"}})}
	if volatile {
		d.outer = filepath.Join(dir, "outer")
	}
	for _, at := range []string{d.Dir, filepath.Join(dir, "outer")} {
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(d.unmount)
	image := d.image()
	if volatile {
		makeImage(t, image, XFS, 2*size)
		d.mount(XFS, image, d.outer)
		image = d.inner()
	}
	makeImage(t, image, kind, size)
	d.mount(kind, image, d.Dir)
	if err := os.RemoveAll(filepath.Join(d.Dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	return d
}

// makeImage makes a sparse file with a file system in it.
func makeImage(t testing.TB, image, kind string, size int64) {
	t.Helper()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs."+kind, append(mkfsArgs(kind), image)...)
}

func (d *Disk) image() string { return filepath.Join(d.store, fmt.Sprintf("image%d", d.images)) }

// inner is the file that is the device with a write cache.
func (d *Disk) inner() string { return filepath.Join(d.outer, "image") }

// Cut keeps what the device would hold if the power went now. The file system goes on meanwhile, until Restore.
func (d *Disk) Cut() {
	d.t.Helper()
	from, err := os.Open(d.image())
	if err != nil {
		d.t.Fatal(err)
	}
	defer from.Close()
	d.images++
	to, err := os.OpenFile(d.image(), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer to.Close()
	// The kernel writes out what of the file is in the page cache, shuts out writes, and then shares all its blocks.
	if err := unix.IoctlFileClone(int(to.Fd()), int(from.Fd())); err != nil {
		d.t.Fatalf("fstest: clone an image: %v", err)
	}
}

// Restore puts the Disk to the state of the last Cut: power is back, and the file system is mounted and recovers.
// Nothing may use it any more.
func (d *Disk) Restore() {
	d.t.Helper()
	for _, at := range []string{d.Dir, d.outer} {
		if at == "" {
			continue
		}
		if err := d.unmountSoon(at); err != nil {
			users, _ := exec.Command("fuser", "-vm", at).CombinedOutput()
			d.t.Fatalf("fstest: unmount %s: %v\n%s", at, err, users)
		}
	}
	if d.kind == Btrfs {
		// The kernel remembers a newer state of the same file system, and refuses the older one.
		run(d.t, "btrfs", "device", "scan", "--forget")
	}
	if err := os.Remove(filepath.Join(d.store, fmt.Sprintf("image%d", d.images-1))); err != nil {
		d.t.Fatal(err)
	}
	d.mountAll()
}

// unmountSoon waits for what is on its way out: the mount namespace of a process that has ended, or the loop device on a
// file below at, whose file system has just been unmounted.
func (d *Disk) unmountSoon(at string) error {
	for tries := 0; ; tries++ {
		err := unix.Unmount(at, 0)
		if !errors.Is(err, unix.EBUSY) || tries == 1000 {
			return err
		}
		select {
		case <-d.t.Context().Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *Disk) mountAll() {
	d.t.Helper()
	image := d.image()
	if d.outer != "" {
		d.mount(XFS, image, d.outer)
		image = d.inner()
	}
	d.mount(d.kind, image, d.Dir)
}

func (d *Disk) mount(kind, image, at string) {
	d.t.Helper()
	options := "loop"
	if kind == XFS {
		options += ",nouuid" // an earlier state of it may be on its way out still, in the namespace of a process that ended
	}
	run(d.t, "mount", "-t", kind, "-o", options, image, at)
}

// unmount ends the use of the Disk.
func (d *Disk) unmount() {
	for _, at := range []string{d.Dir, d.outer} {
		if at != "" {
			unmount(d.t, at)
		}
	}
}
