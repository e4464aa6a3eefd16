package crawler

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// rereads is how often a small file that changes under the reader is read again before a torn copy is sent.
const rereads = 3

// unixTime converts a file time.
func unixTime(t beneath.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// openContent opens the file name below d for sending. It must still be the inode that was listed as listed; if it has
// changed since, its content ends as torn.
func openContent(d *beneath.Dir, name string, listed *beneath.Stat) (slave.Content, error) {
	f, err := openQuietly(d, name)
	if err != nil {
		return nil, err
	}
	c, err := newContent(f, listed)
	if err != nil {
		f.Close()
		return nil, err
	}
	return c, nil
}

// openQuietly leaves the access time alone where the kernel lets us (owner or root).
func openQuietly(d *beneath.Dir, name string) (*os.File, error) {
	f, err := d.OpenFile(name, unix.O_RDONLY|unix.O_NOATIME, 0)
	if errors.Is(err, unix.EPERM) {
		f, err = d.OpenFile(name, unix.O_RDONLY, 0)
	}
	return f, err
}

func newContent(f *os.File, listed *beneath.Stat) (slave.Content, error) {
	st, err := beneath.StatFd(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	if st.Ino != listed.Ino || slave.KindOf(st.Mode) != slave.File {
		return nil, errMoved
	}
	c := &content{file: f, listed: *listed, size: st.Size, sparse: int64(st.Blocks)*512 < st.Size}
	if st.Size <= slave.MaxPiece && !c.sparse {
		return c, c.readWhole()
	}
	return c, nil
}

// content reads a file piece by piece and leaves out its holes.
type content struct {
	file   *os.File
	listed beneath.Stat
	size   int64
	sparse bool
	buf    []byte
	whole  bool // buf holds all of it
	off    int64
	data   int64 // end of the run of data that off lies in
	end    slave.End
}

// readWhole reads a small file at once, and again while it changes.
func (c *content) readWhole() error {
	c.whole = true
	for range rereads {
		buf, err := io.ReadAll(io.NewSectionReader(c.file, 0, slave.MaxPiece+1))
		if err != nil {
			return err
		}
		torn, err := c.changed()
		if err != nil {
			return err
		}
		// A file that outgrew one piece meanwhile goes on in the next crawl.
		c.buf = buf[:min(len(buf), slave.MaxPiece)]
		c.end = slave.End{Size: int64(len(c.buf)), Torn: torn || len(buf) > slave.MaxPiece}
		if !c.end.Torn {
			break
		}
	}
	return nil
}

// changed compares the file with what was listed: a ctime that moved means that content or metadata did.
func (c *content) changed() (bool, error) {
	st, err := beneath.StatFd(int(c.file.Fd()))
	if err != nil {
		return false, err
	}
	return st.Ctime != c.listed.Ctime || st.Size != c.listed.Size || st.Mtime != c.listed.Mtime, nil
}

// Next implements slave.Content.
func (c *content) Next() (slave.Piece, error) {
	if c.whole {
		return c.nextOfWhole()
	}
	if c.buf == nil {
		c.buf = make([]byte, slave.MaxPiece)
	}
	if err := c.skipHole(); err != nil {
		return c.finish(err)
	}
	want := min(int64(len(c.buf)), c.data-c.off)
	n, err := c.file.ReadAt(c.buf[:want], c.off)
	if n == 0 {
		return c.finish(err)
	}
	p := slave.Piece{Off: c.off, Data: c.buf[:n]}
	c.off += int64(n)
	return p, nil
}

func (c *content) nextOfWhole() (slave.Piece, error) {
	if c.off > 0 || len(c.buf) == 0 {
		return slave.Piece{}, io.EOF
	}
	c.off = int64(len(c.buf))
	return slave.Piece{Data: c.buf}, nil
}

// skipHole moves off to the next data. io.EOF means that none follows.
func (c *content) skipHole() error {
	if c.off >= c.size {
		return io.EOF
	}
	if c.off < c.data {
		return nil
	}
	if !c.sparse {
		c.data = c.size
		return nil
	}
	start, err := unix.Seek(int(c.file.Fd()), c.off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		return io.EOF
	}
	if err != nil {
		return fmt.Errorf("seek data: %w", err)
	}
	end, err := unix.Seek(int(c.file.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return fmt.Errorf("seek hole: %w", err)
	}
	c.off, c.data = start, min(end, c.size)
	if c.off >= c.size {
		return io.EOF
	}
	return nil
}

// finish ends the content: where err is io.EOF, with the size the file has now, but never more than was looked at.
func (c *content) finish(err error) (slave.Piece, error) {
	if err != nil && !errors.Is(err, io.EOF) {
		return slave.Piece{}, err
	}
	st, err := beneath.StatFd(int(c.file.Fd()))
	if err != nil {
		return slave.Piece{}, err
	}
	torn, err := c.changed()
	if err != nil {
		return slave.Piece{}, err
	}
	c.end = slave.End{Size: max(min(st.Size, c.size), c.off), Torn: torn}
	return slave.Piece{}, io.EOF
}

// End implements slave.Content.
func (c *content) End() slave.End { return c.end }

// Close implements slave.Content.
func (c *content) Close() error { return c.file.Close() }
