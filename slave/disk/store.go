package disk

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/policy"
)

// store is the slave's directory as all parts use it: its root and what lies in .georep, open, and
// the calls that change them. What is in it is set while the slave is opened, and only read
// afterwards. permMu is the last of all locks. Paths of the tree are resolved beneath dir, and
// never above it.
type store struct {
	*life
	areas
	sys    sys
	log    zerolog.Logger
	policy policy.Policy
	info   slave.Info
	root   bool          // this process runs as uid 0
	prefix string        // makes this session's names in staging its own
	serial atomic.Uint64 // and each of them one of its kind
	permMu sync.Mutex    // modes that are lifted for a moment
}

// areas are the slave's root and the directories in .georep. Those of .georep have mode 0700, on
// the same file system as the root: what is staged can be renamed into place.
type areas struct {
	dir        *beneath.Dir // the root
	base       *beneath.Dir // .georep
	staging    *beneath.Dir
	partial    *beneath.Dir
	parked     *beneath.Dir
	trash      *beneath.Dir
	linksDir   *beneath.Dir
	pending    *beneath.Dir
	indexDir   *beneath.Dir
	recordsDir *beneath.Dir
}

// close closes what is open. It may run twice. Fields that are nil were never opened.
func (a *areas) close() {
	for _, d := range []*beneath.Dir{a.recordsDir, a.indexDir, a.pending, a.linksDir, a.trash, a.parked, a.partial, a.staging, a.base, a.dir} {
		if d != nil {
			d.Close()
		}
	}
}

// Staging is where below slave.Reserved every file is made, before it gets its name.
const Staging = apply.Staging

// area makes and opens a directory of ours. Nothing of its parent may be inherited: no default ACL, no set-gid bit.
func (s *store) area(in *beneath.Dir, name string) (*beneath.Dir, error) {
	if err := s.sys.mkdir(place{in, name}, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	d, err := in.OpenDir(name)
	if err != nil {
		return nil, err
	}
	for _, attr := range []string{attrDefaultACL, attrACL} {
		err := s.sys.removexattr(d.At(""), attr)
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			d.Close()
			return nil, err
		}
	}
	if err := s.sys.chmod(d.At(""), 0o700); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// openAreas opens what lies in .georep and clears what a crash left in staging. The names of the
// directories are a format: slaves of earlier versions have them, and keep them.
func (s *store) openAreas() error {
	areas := []struct {
		name string
		dir  **beneath.Dir
	}{{Staging, &s.staging}, {apply.Partial, &s.partial}, {apply.Parked, &s.parked}, {apply.Trash, &s.trash}, {"links", &s.linksDir},
		{"pending", &s.pending}, {"places", &s.indexDir}, {"records", &s.recordsDir}}
	for _, a := range areas {
		d, err := s.area(s.base, a.name)
		if err != nil {
			return err
		}
		*a.dir = d
	}
	s.sys.barrier = s.staging
	return eachName(s.staging, func(name string) error {
		err := s.sys.unlink(place{s.staging, name})
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			s.log.Warn().Str("name", name).Err(err).Msg("left in staging")
			return nil
		}
		return err
	})
}

// writeNew makes a small file. An error leaves the file there; the caller removes it, or makes it
// in staging, which is cleared.
func (s *store) writeNew(p place, text []byte, durable bool) error {
	f, err := s.sys.create(p, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := s.sys.write(f, text, 0); err != nil {
		return err
	}
	if durable || beneath.Opaque(p.dir) { // where no sync of the file system would reach it
		return s.sys.fsync(f)
	}
	return nil
}

// ancestors identifies the root and the directories above it, as far up as this process may look.
// The master compares them with its own, to refuse a slave within its master, and the other way
// round.
func (s *store) ancestors() []beneath.Identity {
	var all []beneath.Identity
	at, last := s.dir, beneath.Stat{}
	defer func() {
		if at != s.dir {
			at.Close()
		}
	}()
	for {
		st, err := at.Stat("")
		if err != nil || st.Ino == last.Ino && st.Dev == last.Dev {
			return all
		}
		id, err := at.Identity()
		if err != nil {
			return all
		}
		all, last = append(all, id), st
		fd, err := unix.Openat(at.Fd(), "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return all
		}
		if at != s.dir {
			at.Close()
		}
		at = beneath.FromFd(fd, false)
	}
}

// readSmall reads one of our own files. What is larger than maxSmall, or no file, is EINVAL:
// somebody else has put it there.
func readSmall(d *beneath.Dir, name string) ([]byte, error) {
	f, err := d.OpenInode(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if slave.KindOf(st.Mode) != slave.File || st.Size > maxSmall {
		return nil, &fs.PathError{Op: "read", Path: name, Err: unix.EINVAL}
	}
	text := make([]byte, st.Size)
	for got := 0; got < len(text); {
		n, err := f.Read(text[got:])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return text[:got], nil
		}
		got += n
	}
	return text, nil
}

// bootID tells this run of this kernel from every other; "" where /proc does not say.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// openDir opens a directory of the tree without the right to list it.
func (s *store) openDir(path string) (*beneath.Dir, error) { return s.dir.OpenPath(path) }

// writable runs call, which changes names in d. An ordinary user's directory that refuses that is
// opened up: the OpFinish that follows sets its mode. An error of opening up is not told: that of
// the call says what the operator needs to know.
func (s *store) writable(d *beneath.Dir, call func() error) error {
	err := call()
	if s.root || !errors.Is(err, unix.EACCES) {
		return err
	}
	if s.openUp(d) != nil {
		return err
	}
	return call()
}

// lifted runs call while the owner may do everything with an entry, and restores its mode. One
// entry is lifted at a time. A crash in between leaves a mode that is too wide for its owner, and
// for nobody else; the next finish sets it right.
func (s *store) lifted(i *beneath.Inode, call func() error) error {
	s.permMu.Lock()
	defer s.permMu.Unlock()
	st, err := i.Stat()
	if err != nil {
		return err
	}
	mode := st.Mode & 0o7777
	if err := s.sys.chmod(i, mode|0o700); err != nil {
		return err
	}
	return errors.Join(call(), s.sys.chmod(i, mode))
}

// openUp gives an ordinary user all rights to a directory of his, whose mode is set anew afterwards.
func (s *store) openUp(d *beneath.Dir) error {
	st, err := d.Stat("")
	if err != nil || st.Mode&0o700 == 0o700 {
		return err
	}
	return s.sys.chmod(d.At(""), st.Mode&0o7777|0o700)
}

// move renames an entry. An ordinary user must be allowed to write a directory to move it
// elsewhere. It does not replace: a name that is taken is an error. Both directories may be opened
// up, and stay so until they are finished.
func (s *store) move(from, to place, old entry) error {
	rename := func() error {
		return s.writable(from.dir, func() error {
			return s.writable(to.dir, func() error { return s.sys.rename(from, to, 0) })
		})
	}
	err := rename()
	if s.root || old.kind != slave.Dir || !errors.Is(err, unix.EACCES) {
		return err
	}
	d, oerr := from.dir.OpenPath(from.name)
	if oerr != nil {
		return err
	}
	defer d.Close()
	return s.lifted(d.At(""), rename)
}

// eachName calls fn for the names in a directory of our own. fn may remove them; names that are
// added meanwhile may be left out. It costs a descriptor, and memory for a part of the listing. An
// error of fn ends it and is returned as it is.
func eachName(d *beneath.Dir, fn func(name string) error) error {
	again, err := d.OpenDir("") // a listing of its own: d may be listed by others
	if err != nil {
		return err
	}
	defer again.Close()
	return again.List(func(e beneath.Entry) error { return fn(e.Name) })
}

// stagingName gives a name in staging that was never used.
func (s *store) stagingName() string {
	return s.prefix + "-" + strconv.FormatUint(s.serial.Add(1), 36)
}

// putSmall replaces one of our own files, whole. It is not durable before the next sync of the file
// system. Readers see the old or the new one.
func (s *store) putSmall(p place, text []byte) error {
	temp := place{s.staging, s.stagingName() + bookSuffix}
	err := s.writeNew(temp, text, false)
	if err == nil {
		err = s.sys.rename(temp, p, 0)
	}
	if err != nil {
		_ = s.sys.unlink(temp)
	}
	return err
}

// ignoreAbsent makes removing what is gone a success.
func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// openList opens a directory for listing. An ordinary user may have one that he may not read: then
// its mode is lifted for a moment. The caller closes what it gives. Reading needs the right to
// list, which an ordinary user may not have of his own directory.
func (s *store) openList(path string) (*beneath.Dir, error) {
	d, err := s.dir.OpenDir(path)
	if s.root || !errors.Is(err, unix.EACCES) {
		return d, err
	}
	at, perr := s.openDir(path)
	if perr != nil {
		return nil, err
	}
	defer at.Close()
	err = s.lifted(at.At(""), func() error { d, err = s.dir.OpenDir(path); return err })
	if err != nil && d != nil {
		d.Close()
		d = nil
	}
	return d, err
}

// exists tells whether there is an entry at path, of whatever kind. False also where that cannot be
// looked at.
func (s *store) exists(path string) bool {
	if path == "" {
		return true
	}
	dir, name := beneath.Split(path)
	d, err := s.openDir(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	_, err = d.Stat(name)
	return err == nil
}

// maxSmall bounds our own files that are read as a whole: the names of one inode with a great many hard links.
const maxSmall = 16 << 20
