// Package queue reads one of the kernel's event queues, fanotify's or inotify's, through Go's poller: whoever waits for
// events can be woken. It owns the descriptor and knows nothing of what is in the queue.
package queue

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Queue is an open event queue. One goroutine at a time may wait and read; the other methods may be called from any.
type Queue struct {
	file *os.File
	raw  syscall.RawConn
	name string // for messages
}

// New owns fd, which must not block, also when it fails.
func New(fd int, name string) (*Queue, error) {
	file := os.NewFile(uintptr(fd), name)
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Queue{file: file, raw: raw, name: name}, nil
}

// Close drops the queue; a Wait that is under way returns os.ErrClosed. Further calls do nothing.
func (q *Queue) Close() error {
	if err := q.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close %s: %w", q.name, err)
	}
	return nil
}

// Interrupt makes a Wait that is under way, and every later one, return at once.
func (q *Queue) Interrupt() { q.file.SetReadDeadline(time.Unix(1, 0)) }

// Wait returns nil when there is something to read, os.ErrDeadlineExceeded once the time set by WaitUntil has come or
// Interrupt was called.
func (q *Queue) Wait() error {
	failure := error(nil)
	err := q.raw.Read(func(uintptr) bool {
		n, err := q.Bytes()
		failure = err
		return n > 0 || err != nil
	})
	return errors.Join(err, failure)
}

// WaitUntil sets the time at which Wait gives up.
func (q *Queue) WaitUntil(t time.Time) { q.file.SetReadDeadline(t) }

// Bytes tells how much the kernel says is in the queue now.
func (q *Queue) Bytes() (n int, err error) {
	ctlErr := q.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err := errors.Join(ctlErr, err); err != nil {
		return 0, fmt.Errorf("count %s events: %w", q.name, err)
	}
	return n, nil
}

// Read fills b with the oldest events, as many whole ones as fit. It never waits: an empty queue gives 0.
func (q *Queue) Read(b []byte) (n int, err error) {
	ctlErr := q.raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), b) })
	switch {
	case ctlErr != nil:
		return 0, fmt.Errorf("read %s events: %w", q.name, ctlErr)
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read %s events: %w", q.name, err)
	}
	return n, nil
}

// Control calls fn with the descriptor, which stays open meanwhile.
func (q *Queue) Control(fn func(fd int)) error {
	return q.raw.Control(func(fd uintptr) { fn(int(fd)) })
}
