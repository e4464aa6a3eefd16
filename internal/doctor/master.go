package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/internal/beneath"
	"georep/marker"
	"georep/marker/fanotify"
	"georep/marker/inotify"
	"georep/status"
)

// master looks at the directory that is replicated.
func (x *examination) master() {
	p := place{x, OfMaster}
	path := x.Volume.Path
	root, err := beneath.OpenRoot(path, true)
	if err != nil {
		p.problem("directory", "", "%v", beneath.RootError(path, err))
		return
	}
	defer root.Close()
	if !p.directory(root) {
		return
	}
	p.fileSystem(root)
	p.attributes(root)
	p.below(root)
	p.events(root)
	if x.Registered {
		p.marker()
	}
}

// directory tells whether it is the one that became the volume.
func (p place) directory(root *beneath.Dir) (same bool) {
	const check = "directory"
	if err := root.Enterable(); err != nil {
		p.problem(check, "give this user the right to read and enter it", "%q: %v", p.x.Volume.Path, err)
		return false
	}
	id, err := root.Identity()
	if err != nil {
		p.problem(check, "", "identify %q: %v", p.x.Volume.Path, err)
		return false
	}
	if err := beneath.Identifies(root); err != nil {
		p.problem(check, "", "%q: %v", p.x.Volume.Path, err)
		return false
	}
	if v := p.x.Volume; v.RootGFID != "" && id.GFID.String() != v.RootGFID {
		p.problem(check, "mount what was there, or delete the sessions and the volume and begin anew",
			"%q is not the directory that became volume %s: its file system is not mounted, or it was replaced", v.Path, v.Name)
		return false
	}
	p.ok(check, "%s", p.x.Volume.Path)
	return true
}

// kinds are the names of file systems, by the f_type of statfs(2).
var kinds = map[uint32]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "XFS", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "ZFS", unix.NFS_SUPER_MAGIC: "NFS",
	unix.FUSE_SUPER_MAGIC: "FUSE", unix.CIFS_SUPER_MAGIC: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB", unix.CEPH_SUPER_MAGIC: "CephFS",
}

// fileSystem tells its kind, and whether marks have room.
func (p place) fileSystem(root *beneath.Dir) {
	const check = "file system"
	fs, err := root.Statfs()
	if err != nil {
		p.problem(check, "", "statfs: %v", err)
		return
	}
	kind := kinds[uint32(fs.Type)]
	if kind == "" {
		kind = fmt.Sprintf("type %#x", uint32(fs.Type))
	}
	switch {
	case fs.Flags&unix.ST_RDONLY != 0:
		p.problem(check, "mount it read-write: what has changed is noted in extended attributes", "%s, mounted read-only", kind)
	case fs.Blocks > 0 && fs.Bavail == 0:
		p.warn(check, "make room there", "%s, full: an attribute may find no room, and its directory is then compared each time", kind)
	default:
		p.ok(check, "%s, %s free of %s", kind, status.Bytes(int64(fs.Bavail)*fs.Bsize), status.Bytes(int64(fs.Blocks)*fs.Bsize))
	}
}

// attributes tells in which name space the marks are, or would be.
func (p place) attributes(root *beneath.Dir) {
	const check = "attributes"
	if ns := p.x.Volume.Namespace; ns != "" {
		if ns == "trusted" && !has(cap.SYS_ADMIN) {
			p.problem(check, "run as root", "the marks are trusted.* attributes, which this user cannot read")
			return
		}
		p.ok(check, "the marks are %s.* extended attributes", ns)
		return
	}
	// No name of this kind is ever there: what matters is why it is not.
	_, err := root.Getxattr("", "user.georep.doctor")
	if errors.Is(err, unix.EOPNOTSUPP) {
		p.problem(check, "use a file system that has them", "there are no extended attributes: %v", err)
		return
	}
	p.ok(check, "the file system has extended attributes")
}

// below names what is mounted below the root, which is not replicated.
func (p place) below(root *beneath.Dir) {
	const check, named = "mounts", 3
	table, err := beneath.OpenMountTable()
	if err != nil {
		p.problem(check, "mount /proc", "%v", err)
		return
	}
	defer table.Close()
	all, err := table.Below(root)
	if err != nil {
		p.problem(check, "", "%v", err)
		return
	}
	if len(all) == 0 {
		p.ok(check, "nothing is mounted below it")
		return
	}
	var list []string
	for _, path := range all[:min(len(all), named)] {
		list = append(list, fmt.Sprintf("%q", path))
	}
	if more := len(all) - named; more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	p.note(check, "not replicated, since other file systems are mounted there: %s (make volumes of those that matter)", strings.Join(list, ", "))
}

// events tells where changes can be learnt from.
func (p place) events(root *beneath.Dir) {
	const check = "event source"
	if err := inotify.Local(root); err != nil {
		p.warn(check, "run georep on the host whose disk it is, or live with scans", "%v: changes are found by scans", err)
		return
	}
	source, err := fanotify.Open(root.Fd())
	if err == nil {
		err = source.Close()
	}
	if err == nil {
		p.ok(check, "fanotify")
		return
	}
	p.warn(check, "run as root, on a kernel and file system with fanotify; inotify needs a watch for each directory",
		"no fanotify (%v): changes are learnt by inotify", err)
}

// marker tells what the volume's marker says of itself.
func (p place) marker() {
	const check, silent = "marker", time.Minute
	dir := p.x.Store.Runtime(p.x.Volume.Name).Dir
	st, err := marker.ReadStatus(dir)
	if errors.Is(err, fs.ErrNotExist) {
		p.note(check, "none has run yet; a session that is started starts it")
		return
	}
	if err != nil {
		p.problem(check, "stop and start the session", "%v", err)
		return
	}
	if !marker.Alive(dir) {
		p.note(check, "it does not run; a session that is started starts it")
		return
	}
	age := time.Since(st.Heartbeat)
	switch {
	case age > silent:
		p.warn(check, "see marker.log in "+dir, "its last heartbeat was %v ago: %s", age.Round(time.Second), st.Reason)
	case st.Unmarked > 0:
		p.warn(check, "georep status --detail says why; such entries are compared each time", "%d marks were refused, such as %s", st.Unmarked,
			strings.Join(st.UnmarkedSample[:min(1, len(st.UnmarkedSample))], ""))
	case st.Source != marker.SourceFanotify:
		p.note(check, "learns of changes by %s: %s", st.Source, st.Reason)
	default:
		p.ok(check, "runs, by %s; %d entries", st.Source, st.Entries)
	}
	if st.Hidden != "" {
		p.note(check, "%s", st.Hidden)
	}
}
