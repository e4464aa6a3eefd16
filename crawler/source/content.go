package source

import (
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/slave"
)

// rereads is how often a small file that changes under the reader is read again before a torn copy is sent.
const rereads = 3

// UnixTime converts a file time.
func UnixTime(t beneath.Time) time.Time { return time.Unix(t.Sec, int64(t.Nsec)) }

// OpenContent implements Source.
func (m *Local) OpenContent(d *beneath.Dir, listed *plan.Entry) (slave.Content, error) {
	f, err := d.OpenQuietly(listed.Name)
	if err != nil {
		return nil, err
	}
	c := &content{file: f, listed: listed.Stat, small: m.small}
	if err := c.begin(); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// begin reads a small file at once; of another it looks at what there is to read.
func (c *content) begin() error {
	if size := c.listed.Size; size < slave.MaxPiece && int64(c.listed.Blocks)*512 >= size {
		whole, err := c.readWhole()
		if err != nil || whole {
			return err
		}
	}
	st, err := look(c.file, &c.listed)
	if err != nil {
		return err
	}
	c.size, c.sparse = st.Size, int64(st.Blocks)*512 < st.Size
	return nil
}

// content reads a file piece by piece and leaves out its holes.
type content struct {
	file   *beneath.Inode
	listed beneath.Stat
	size   int64
	sparse bool
	buf    []byte
	small  *sync.Pool // of buffers for small files
	lent   *[]byte    // one of them, until Close
	whole  bool       // buf holds all of it
	off    int64
	data   int64 // end of the run of data that off lies in
	end    slave.End
}

// readWhole reads a small file at once, and again while it changes; few system calls a file are what that is about. It
// gives up on one that outgrew its piece.
func (c *content) readWhole() (bool, error) {
	size := c.listed.Size
	for range rereads {
		buf := c.room(int(size) + 1)
		n, err := c.file.ReadUpTo(buf, 0)
		if err != nil {
			return false, err
		}
		st, err := look(c.file, &c.listed)
		if err != nil {
			return false, err
		}
		if n == len(buf) || int64(n) != st.Size {
			if size = st.Size; size >= slave.MaxPiece {
				break
			}
			continue // it grows or shrinks: another try, with what it is now
		}
		c.buf, c.whole = buf[:n], true
		c.end = slave.End{Size: int64(n), Torn: differs(&st, &c.listed)}
		if !c.end.Torn {
			break
		}
	}
	return c.whole, nil
}

// room gives n bytes, of a buffer that small files share where that is large enough.
func (c *content) room(n int) []byte {
	if n > smallBuffer {
		return make([]byte, n)
	}
	if c.lent == nil {
		c.lent = c.small.Get().(*[]byte)
	}
	return (*c.lent)[:n]
}

// smallBuffer is the length of the buffers that small files share, one after the other.
const smallBuffer = 64 << 10

func newSmallBuffers() *sync.Pool {
	return &sync.Pool{New: func() any { b := make([]byte, smallBuffer); return &b }}
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
	if err == nil && n == 0 {
		err = io.EOF
	}
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
	start, end, err := c.file.Extent(c.off)
	if errors.Is(err, unix.ENXIO) {
		return io.EOF
	}
	if err != nil {
		return err
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
	st, err := c.file.Stat()
	if err != nil {
		return slave.Piece{}, err
	}
	torn := differs(&st, &c.listed)
	c.end = slave.End{Size: max(min(st.Size, c.size), c.off), Torn: torn}
	return slave.Piece{}, io.EOF
}

// End implements slave.Content.
func (c *content) End() slave.End { return c.end }

// Close implements slave.Content.
func (c *content) Close() error {
	if c.lent != nil {
		c.small.Put(c.lent)
		c.lent, c.buf = nil, nil
	}
	return c.file.Close()
}
