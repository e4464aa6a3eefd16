// Package fanotify listens to all changes of one file system through the kernel's fanotify and gives them as events
// that name directories by file handle. It owns the descriptor of the event queue and the raw format; it knows nothing
// of volumes, opens no file and marks nothing.
//
// It needs CAP_SYS_ADMIN and a file system with file handles; Open says so otherwise. overlayfs, and btrfs subvolumes on
// older kernels, refuse.
package fanotify

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// readBuffer holds a few thousand events.
const readBuffer = 256 << 10

// Source is an open event queue. One goroutine at a time may use it; Close may be called from any.
type Source struct {
	file *os.File
	raw  syscall.RawConn
	buf  []byte
}

// mask names what changes a tree. Reads and opens are of no interest.
const mask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_RENAME | unix.FAN_MODIFY | unix.FAN_ATTRIB |
	unix.FAN_CLOSE_WRITE | unix.FAN_ONDIR

// Open listens to the whole file system that the open directory dirFd lies on. Events that happen after it returns are
// in the queue. The error wraps the errno: EPERM without privilege, EOPNOTSUPP, ENODEV or EXDEV where the file system
// cannot, EINVAL on kernels before 5.17.
func Open(dirFd int) (*Source, error) {
	flags := uint(unix.FAN_CLASS_NOTIF | unix.FAN_REPORT_DFID_NAME_TARGET | unix.FAN_NONBLOCK | unix.FAN_CLOEXEC)
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, dirFd, "."); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("fanotify_mark: %w", err)
	}
	file := os.NewFile(uintptr(fd), "fanotify")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("fanotify: %w", err)
	}
	return &Source{file: file, raw: raw, buf: make([]byte, readBuffer)}, nil
}

// Close drops the queue; a Wait that is under way returns os.ErrClosed. Further calls do nothing.
func (s *Source) Close() error {
	if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close fanotify: %w", err)
	}
	return nil
}

// Interrupt makes a Wait that is under way, and every later one, return at once.
func (s *Source) Interrupt() { s.file.SetReadDeadline(time.Unix(1, 0)) }

// Wait returns nil when there is something to read, os.ErrDeadlineExceeded once the time set by WaitUntil has come or
// Interrupt was called.
func (s *Source) Wait() error {
	failure := error(nil)
	err := s.raw.Read(func(uintptr) bool {
		n, err := s.Pending()
		failure = err
		return n > 0 || err != nil
	})
	return errors.Join(err, failure)
}

// WaitUntil sets the time at which Wait gives up.
func (s *Source) WaitUntil(t time.Time) { s.file.SetReadDeadline(t) }

// Pending tells how many events are in the queue now. Every event of the past is among them or was read before.
func (s *Source) Pending() (events int, err error) {
	bytes := 0
	ctlErr := s.raw.Control(func(fd uintptr) { bytes, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	if err := errors.Join(ctlErr, err); err != nil {
		return 0, fmt.Errorf("count fanotify events: %w", err)
	}
	// The kernel counts the fixed part of each event only.
	return bytes / metaSize, nil
}

// Read calls fn for the oldest events of the queue, as many as one system call gives, and counts them. It never waits:
// an empty queue gives 0. The Event is valid during the call; its strings may be kept.
func (s *Source) Read(fn func(*Event)) (events int, err error) {
	n := 0
	ctlErr := s.raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), s.buf) })
	switch {
	case ctlErr != nil:
		return 0, fmt.Errorf("read fanotify events: %w", ctlErr)
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read fanotify events: %w", err)
	}
	return Parse(s.buf[:n], fn)
}
