package agent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"
)

// receiver takes frames off a stream. It has one user at a time. A frame is read whole before it is
// looked at, so its length is checked first, and the budget asked.
type receiver struct {
	r    *bufio.Reader
	buf  []byte
	most int // bytes of a frame
	// admit, where it is set, is asked before a frame is read. It may wait.
	admit func(kind frameKind, n int) error
}

// firstStep is how much is allocated for a frame before any of it has come.
const firstStep = 64 << 10

// next reads a frame, whose body is valid until the following call. It returns io.EOF where the
// stream ends between frames, io.ErrUnexpectedEOF where it ends within one. After an error nothing
// more can be read: the place of the next frame is not known.
func (r *receiver) next() (frame, error) {
	var length [4]byte
	if _, err := io.ReadFull(r.r, length[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(length[:])
	if int64(n) > int64(r.most) {
		return frame{}, malformed("a frame of %d bytes; %d are allowed", n, r.most)
	}
	if r.admit != nil && n > 0 {
		kind, err := r.r.Peek(1)
		if err != nil {
			return frame{}, cutShort(err)
		}
		if err := r.admit(frameKind(kind[0]), int(n)); err != nil {
			return frame{}, err
		}
	}
	if err := r.fill(int(n)); err != nil {
		return frame{}, err
	}
	return parseFrame(r.buf)
}

// fill reads n bytes. It allocates no more than twice what has really come.
func (r *receiver) fill(n int) error {
	if n <= keepBuffer {
		r.drop()
	}
	buf := r.buf[:0]
	for len(buf) < n {
		step := min(n-len(buf), max(firstStep, len(buf)))
		buf = slices.Grow(buf, step)
		got, err := io.ReadFull(r.r, buf[len(buf):len(buf)+step])
		buf = buf[:len(buf)+got]
		if err != nil {
			return cutShort(err)
		}
	}
	r.buf = buf
	return nil
}

// drop lets go of a buffer that a large frame has blown up.
func (r *receiver) drop() {
	if cap(r.buf) > keepBuffer {
		r.buf = nil
	}
}

// watched reads from r and calls dead, once, when a read waits for longer than limit: nobody is expected to be silent
// for so long. Time in which nobody reads does not count.
type watched struct {
	r     io.Reader
	limit time.Duration
	fired atomic.Bool
	timer *time.Timer
}

// watch makes a watched; the clock runs only during reads. dead runs on a goroutine of its own and
// must unblock the read, by closing the stream for example.
func watch(r io.Reader, limit time.Duration, dead func()) *watched {
	w := &watched{r: r, limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		w.fired.Store(true)
		dead()
	})
	w.timer.Stop()
	return w
}

// Read reads from the stream; an error after the other end was given up wraps ErrSilent.
func (w *watched) Read(p []byte) (int, error) {
	w.timer.Reset(w.limit)
	n, err := w.r.Read(p)
	w.timer.Stop()
	if err != nil && !errors.Is(err, ErrSilent) && w.fired.Load() {
		err = fmt.Errorf("%w for %v", ErrSilent, w.limit)
	}
	return n, err
}

// newReceiver reads ahead a little, so that small frames do not cost a read each.
func newReceiver(r io.Reader) *receiver {
	return &receiver{r: bufio.NewReaderSize(r, firstStep), most: maxFrame}
}
