package inotify

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// ErrLimit means that the kernel gives no more watches, or no queue. The error that wraps it says what would help.
var ErrLimit = errors.New("inotify's limit is reached")

// ErrRemote means that others may change the file system without this kernel's knowledge. The error that wraps it names
// the kind of file system.
var ErrRemote = errors.New("no event tells of changes made there by other hosts or by its server")

// remote are the file systems whose changes may be made elsewhere, by the f_type of statfs(2).
func remote() map[uint32]string {
	return map[uint32]string{
		unix.NFS_SUPER_MAGIC: "nfs", unix.SMB_SUPER_MAGIC: "smb", unix.CIFS_SUPER_MAGIC: "cifs",
		unix.SMB2_SUPER_MAGIC: "smb3", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p",
		unix.CEPH_SUPER_MAGIC: "ceph", unix.AFS_SUPER_MAGIC: "afs", unix.AFS_FS_MAGIC: "afs",
		unix.CODA_SUPER_MAGIC: "coda", unix.NCP_SUPER_MAGIC: "ncp", unix.OCFS2_SUPER_MAGIC: "ocfs2",
		unix.HOSTFS_SUPER_MAGIC: "hostfs", 0x01161970: "gfs2", 0x0bd00bd0: "lustre", 0x20030528: "orangefs",
		0x47504653: "gpfs", 0x19830326: "beegfs", 0xaad7aaea: "panfs", 0xbacbacbc: "vmhgfs", 0x786f4256: "vboxsf",
	}
}

// Local returns nil where every change of the file system that d lies on is made through this kernel, and ErrRemote,
// wrapped, where it may not be.
func Local(d *beneath.Dir) error {
	fs, err := d.Statfs()
	if err != nil {
		return err
	}
	return local(uint32(fs.Type))
}

// local is an error for a file system whose changes may come from elsewhere; it names the kind.
func local(fsType uint32) error {
	if name, ok := remote()[fsType]; ok {
		return fmt.Errorf("%s: %w", name, ErrRemote)
	}
	return nil
}

// sysctl are the limits: those of the machine, and those of this user namespace.
const (
	watchesLimit   = "fs.inotify.max_user_watches"
	instancesLimit = "fs.inotify.max_user_instances"
	watchesInNS    = "user.max_inotify_watches"
	instancesInNS  = "user.max_inotify_instances"
)

// Raise is how to set a limit, for now and for ever.
func Raise(key string, n int) string {
	return fmt.Sprintf("run \"sysctl %s=%d\" as root, write the same into a file of /etc/sysctl.d, then stop and start the "+
		"session", key, n)
}

// Limit reads a sysctl; -1 where it cannot be read.
func Limit(key string) int {
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return -1
	}
	return n
}

// lower is which of two limits holds, and its value: that of the user namespace where it is the lower one.
func lower(machine, namespace string) (string, int) {
	m, n := Limit(machine), Limit(namespace)
	if n >= 0 && (n < m || m < 0) {
		return namespace, n
	}
	return machine, m
}

// instancesError explains why there is no queue.
func instancesError(err error) error {
	if !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("inotify_init: %w", err)
	}
	key, n := lower(instancesLimit, instancesInNS)
	return fmt.Errorf("%w: this user has as many inotify queues as may be, %d: %s: %w", ErrLimit, n, Raise(key, 2*max(n, 64)), err)
}

// watchesError explains why there are no more watches, when so many are there and so many directories are in the tree.
func watchesError(have, dirs int, err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: watch one more directory than %d: %w", ErrLimit, have, err)
	}
	key, n := lower(watchesLimit, watchesInNS)
	return fmt.Errorf("%w: %d directories are there, but this user may watch only %d in all: %s: %w",
		ErrLimit, dirs, n, Raise(key, enough(n, have, dirs)), err)
}

// enough is a number of watches with which this tree, and what others have, finds room, and with some to spare.
func enough(limit, have, dirs int) int {
	others := max(0, limit-have)
	n := others + dirs + dirs/4
	return (n/8192 + 1) * 8192
}

// count tells how many directories the tree has that d is the root of. What cannot be read counts as nothing.
func count(d *beneath.Dir) int {
	n := 1
	// What is counted goes into a message, so an error only makes it smaller.
	_ = d.List(func(e beneath.Entry) error {
		if e.Type != unix.DT_DIR && e.Type != unix.DT_UNKNOWN {
			return nil
		}
		child, err := d.OpenDir(e.Name)
		if err != nil {
			return nil
		}
		defer child.Close()
		n += count(child)
		return nil
	})
	return n
}
