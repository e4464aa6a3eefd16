package compare

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// gone reports an error that a change of the tree during the comparison explains.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE) ||
		errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}

// attributes compares everything that every type of entry has.
func (w *walk) attributes(p pair) error {
	for _, c := range w.simple(p) {
		if c.a == c.b {
			continue
		}
		if err := w.report(p.path, c.kind, c.a, c.b); err != nil {
			return err
		}
	}
	return w.xattrs(p)
}

// fact is one thing that stat tells of both sides.
type fact struct {
	kind Kind
	a, b string
}

// simple lists what stat tells. The mode of a symlink means nothing on Linux.
func (w *walk) simple(p pair) []fact {
	kind := p.a.kind()
	facts := []fact{
		{UID, fmt.Sprint(p.a.st.Uid), fmt.Sprint(p.b.st.Uid)},
		{GID, fmt.Sprint(p.a.st.Gid), fmt.Sprint(p.b.st.Gid)},
	}
	if kind != unix.S_IFLNK && !w.opts.IgnoreMode {
		facts = append(facts, fact{Mode, octal(p.a.st.Mode), octal(p.b.st.Mode)})
	}
	if !w.opts.IgnoreMtime && (kind != unix.S_IFDIR || !w.opts.IgnoreDirMtime) {
		facts = append(facts, fact{Mtime, stamp(p.a.mtime()), stamp(p.b.mtime())})
	}
	switch kind {
	case unix.S_IFREG:
		facts = append(facts, fact{Size, fmt.Sprint(p.a.st.Size), fmt.Sprint(p.b.st.Size)})
	case unix.S_IFCHR, unix.S_IFBLK:
		facts = append(facts, fact{Rdev, device(p.a.st.Rdev), device(p.b.st.Rdev)})
	}
	return facts
}

// octal, stamp and device show modes, times and device numbers in full, so that equal strings mean equal things.
func octal(mode uint32) string { return fmt.Sprintf("%04o", mode&0o7777) }

func stamp(t time.Time) string {
	return fmt.Sprintf("%s (%d.%09d)", t.UTC().Format(time.RFC3339Nano), t.Unix(), t.Nanosecond())
}

func device(rdev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev))
}

// xattrs reports every attribute that one side lacks or holds with another value.
func (w *walk) xattrs(p pair) error {
	a, err := at.Xattrs(p.a.dir, p.a.name)
	if err != nil {
		return err
	}
	b, err := at.Xattrs(p.b.dir, p.b.name)
	if err != nil {
		return err
	}
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, both := a[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		valueA, inA := a[name]
		valueB, inB := b[name]
		if inA == inB && valueA == valueB || w.opts.IgnoreXattr(name) {
			continue
		}
		if err := w.report(p.path, Xattr, attr(name, valueA, inA), attr(name, valueB, inB)); err != nil {
			return err
		}
	}
	return nil
}

// attr shows an attribute for people, a long value by its beginning.
func attr(name, value string, there bool) string {
	switch {
	case !there:
		return name + " absent"
	case len(value) > 64:
		return fmt.Sprintf("%s=%x... (%d bytes)", name, value[:64], len(value))
	}
	return fmt.Sprintf("%s=%x", name, value)
}

// symlink compares targets.
func (w *walk) symlink(p pair) error {
	a, err := at.Readlink(p.a.dir, p.a.name)
	if err != nil {
		return err
	}
	b, err := at.Readlink(p.b.dir, p.b.name)
	if err != nil || a == b {
		return err
	}
	return w.report(p.path, Target, Quote(a), Quote(b))
}

// regular compares contents, and holes when asked to. Files of different size were reported already.
func (w *walk) regular(p pair) error {
	if p.a.st.Size != p.b.st.Size || p.a.st.Size == 0 {
		return nil
	}
	a, err := openFile(p.a)
	if err != nil {
		return err
	}
	defer unix.Close(a)
	b, err := openFile(p.b)
	if err != nil {
		return err
	}
	defer unix.Close(b)
	if err := w.content(p.path, a, b); err != nil || !w.opts.Holes {
		return err
	}
	return w.holes(p, a, b)
}

// openFile opens for reading, without a trace in the access time where that is allowed.
func openFile(s side) (int, error) {
	fd, err := at.Open(s.dir, s.name, unix.O_RDONLY|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		return at.Open(s.dir, s.name, unix.O_RDONLY)
	}
	return fd, err
}

// content reads both files side by side and reports the first byte that differs.
func (w *walk) content(path string, a, b int) error {
	for offset := int64(0); ; {
		n, err := readFull(a, w.bufA, offset)
		if err != nil {
			return fmt.Errorf("read %s: %w", Quote(path), err)
		}
		m, err := readFull(b, w.bufB, offset)
		if err != nil {
			return fmt.Errorf("read %s: %w", Quote(path), err)
		}
		if i := mismatch(w.bufA[:n], w.bufB[:m]); i >= 0 {
			where := fmt.Sprintf(" from byte %d on", offset+int64(i))
			return w.report(path, Content, excerpt(w.bufA[i:n])+where, excerpt(w.bufB[i:m]))
		}
		if n < len(w.bufA) {
			return nil
		}
		offset += int64(n)
	}
}

// excerpt shows a few bytes.
func excerpt(b []byte) string { return fmt.Sprintf("%x", b[:min(8, len(b))]) }

// readFull fills buf from offset on, short only at the end of the file.
func readFull(fd int, buf []byte, offset int64) (int, error) {
	for done := 0; ; {
		n, err := unix.Pread(fd, buf[done:], offset+int64(done))
		if err == unix.EINTR {
			continue
		}
		done += max(n, 0)
		if err != nil || n == 0 || done == len(buf) {
			return done, err
		}
	}
}

// mismatch returns the first index at which the two differ, or -1.
func mismatch(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	shorter := min(len(a), len(b))
	for i := range shorter {
		if a[i] != b[i] {
			return i
		}
	}
	return shorter
}

// holes compares how many bytes lie in data extents.
func (w *walk) holes(p pair, a, b int) error {
	dataA, err := dataBytes(a, p.a.st.Size)
	if err != nil {
		return fmt.Errorf("seek data in %s: %w", Quote(p.path), err)
	}
	dataB, err := dataBytes(b, p.b.st.Size)
	if err != nil {
		return fmt.Errorf("seek data in %s: %w", Quote(p.path), err)
	}
	if dataB <= dataA+w.opts.HoleSlack {
		return nil
	}
	return w.report(p.path, Holes, fmt.Sprintf("%d bytes of data", dataA), fmt.Sprintf("%d", dataB))
}

// dataBytes adds up the data extents of a file. A file system without holes gives the whole size.
func dataBytes(fd int, size int64) (int64, error) {
	var total int64
	for end := int64(0); end < size; {
		start, err := unix.Seek(fd, end, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break
		}
		if err != nil {
			return 0, err
		}
		if end, err = unix.Seek(fd, start, unix.SEEK_HOLE); err != nil {
			return 0, err
		}
		total += end - start
	}
	return total, nil
}
