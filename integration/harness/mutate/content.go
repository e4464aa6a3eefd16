package mutate

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"georep/integration/harness/tree"
)

// someSize draws a size: often small, sometimes none, now and then around a megabyte.
func (m *Mutator) someSize() int64 {
	limits := []int64{1, 100, 4096, 4097, 40_000, 200_000, 1<<20 + 2}
	size := m.rng.Int64N(limits[m.rng.IntN(len(limits))])
	return min(size, m.opts.MaxFile)
}

// data returns bytes that look random.
func (m *Mutator) data(size int64) []byte {
	data := make([]byte, size)
	tree.Fill(data, m.rng.Uint64())
	return data
}

// fits reports whether a file may grow from old to size.
func (m *Mutator) fits(old, size int64) bool {
	return size <= m.opts.MaxFile && m.model.bytes+size-old <= m.opts.MaxBytes
}

// create makes a new file with some content. Like every operation it returns what it did, for people.
func (m *Mutator) create() (string, error) {
	p, err := m.free(1)
	size := m.someSize()
	if err != nil || !m.fits(0, size) {
		return "", errSkip
	}
	did := fmt.Sprintf("%q (%d bytes)", m.pathOf(p), size)
	if err := writeNew(m.pathOf(p), m.data(size)); err != nil {
		return did, err
	}
	m.touchNode(m.model.add(p.dir, p.name, &inode{kind: file, size: size}))
	return did, nil
}

// touchNode notes that a node and the directory it is in have a new time.
func (m *Mutator) touchNode(n *node) { m.touched = append(m.touched, n, n.parent) }

// writeNew makes a file that must not be there yet.
func writeNew(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// change opens a file for writing and notes its new size once do has succeeded.
func (m *Mutator) change(n *node, size int64, do func(*os.File) error) error {
	f, err := os.OpenFile(m.model.path(n), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(do(f), f.Close()); err != nil {
		return err
	}
	m.model.resize(n.ino, size)
	m.touched = append(m.touched, n)
	return nil
}

// write replaces the whole content in place, as a shell's ">" does: for a moment the file is empty.
func (m *Mutator) write() (string, error) {
	n, size := m.pick(isFile), m.someSize()
	if n == nil || !m.fits(n.ino.size, size) {
		return "", errSkip
	}
	data := m.data(size)
	return fmt.Sprintf("%s (%d bytes)", m.quote(n), size), m.change(n, size, func(f *os.File) error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		_, err := f.WriteAt(data, 0)
		return err
	})
}

// extend appends.
func (m *Mutator) extend() (string, error) {
	n, more := m.pick(isFile), 1+m.rng.Int64N(5000)
	if n == nil || !m.fits(n.ino.size, n.ino.size+more) {
		return "", errSkip
	}
	return m.patch(n, n.ino.size, more)
}

// overwrite changes a part of the content; the size stays.
func (m *Mutator) overwrite() (string, error) {
	n := m.pick(func(n *node) bool { return isFile(n) && n.ino.size > 0 })
	if n == nil {
		return "", errSkip
	}
	return m.patchInside(n)
}

// patchInside writes somewhere between a file's first and last byte.
func (m *Mutator) patchInside(n *node) (string, error) {
	offset := m.rng.Int64N(n.ino.size)
	return m.patch(n, offset, 1+m.rng.Int64N(min(n.ino.size-offset, 20_000)))
}

// patch writes size bytes at offset, which may lie behind the end.
func (m *Mutator) patch(n *node, offset, size int64) (string, error) {
	data := m.data(size)
	did := fmt.Sprintf("%s (%d bytes at %d of %d)", m.quote(n), size, offset, n.ino.size)
	return did, m.change(n, max(n.ino.size, offset+size), func(f *os.File) error {
		_, err := f.WriteAt(data, offset)
		return err
	})
}

// truncate makes a file shorter, or longer by a hole.
func (m *Mutator) truncate() (string, error) {
	n := m.pick(isFile)
	if n == nil {
		return "", errSkip
	}
	size := m.rng.Int64N(2*n.ino.size + 2)
	if !m.fits(n.ino.size, size) || size == n.ino.size {
		return "", errSkip
	}
	did := fmt.Sprintf("%s (%d to %d)", m.quote(n), n.ino.size, size)
	return did, m.change(n, size, func(f *os.File) error { return f.Truncate(size) })
}

// sparse leaves a hole behind the end and writes after it.
func (m *Mutator) sparse() (string, error) {
	n, hole, size := m.pick(isFile), 1+m.rng.Int64N(600_000), 1+m.rng.Int64N(100)
	if n == nil || !m.fits(n.ino.size, n.ino.size+hole+size) {
		return "", errSkip
	}
	return m.patch(n, n.ino.size+hole, size)
}

// punch makes a hole where there was data.
func (m *Mutator) punch() (string, error) {
	n := m.pick(func(n *node) bool { return isFile(n) && n.ino.size > 4096 })
	if n == nil {
		return "", errSkip
	}
	offset := m.rng.Int64N(n.ino.size - 1)
	length := 1 + m.rng.Int64N(n.ino.size-offset)
	did := fmt.Sprintf("%s (%d bytes at %d)", m.quote(n), length, offset)
	err := m.change(n, n.ino.size, func(f *os.File) error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	})
	return refused(did, err, unix.EOPNOTSUPP)
}

// save does what editors do: a new file beside the old one, then a rename over it.
func (m *Mutator) save() (string, error) {
	n, size, synced := m.pick(isFile), m.someSize(), m.rng.IntN(4) == 0
	if n == nil || !m.fits(0, size) {
		return "", errSkip
	}
	did := fmt.Sprintf("%s (%d bytes)", m.quote(n), size)
	temporary := m.temporary(n)
	if err := writeNew(temporary, m.data(size)); err != nil {
		return did, err
	}
	if synced {
		if err := syncFile(temporary); err != nil {
			return did, err
		}
	}
	if err := os.Rename(temporary, m.model.path(n)); err != nil {
		return did, err
	}
	m.become(n, &inode{kind: file, size: size})
	return did, nil
}

// syncFile makes a file durable, as careful programs do before they rename.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// become notes that a name now stands for a new inode.
func (m *Mutator) become(n *node, ino *inode) {
	parent, name := n.parent, n.name
	m.model.remove(n)
	m.touchNode(m.model.add(parent, name, ino))
}

// stealth changes content and puts the time back: the size is the same too, so only the content tells.
func (m *Mutator) stealth() (string, error) {
	n := m.pick(func(n *node) bool { return isFile(n) && n.ino.size > 0 })
	if n == nil {
		return "", errSkip
	}
	path, offset := m.model.path(n), m.rng.Int64N(n.ino.size)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return m.quote(n), &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	err := m.change(n, n.ino.size, func(f *os.File) error { return flip(f, offset) })
	m.touched = m.touched[:0]
	if err == nil {
		err = setTime(path, st.Mtim.Sec, st.Mtim.Nsec)
	}
	return fmt.Sprintf("%s (byte %d of %d)", m.quote(n), offset, n.ino.size), err
}

// flip changes one byte for sure.
func flip(f *os.File, offset int64) error {
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		return err
	}
	b[0] ^= 0xff
	_, err := f.WriteAt(b[:], offset)
	return err
}
