// Package fanotify listens to all changes of one file system through the kernel's fanotify and gives them as events
// that name directories by file handle. It owns the descriptor of the event queue and the raw format; it knows nothing
// of volumes, opens no file and marks nothing.
//
// It needs CAP_SYS_ADMIN and a file system with file handles; Open says so otherwise. overlayfs, and btrfs subvolumes on
// older kernels, refuse.
package fanotify

import (
	"fmt"

	"golang.org/x/sys/unix"

	"georep/marker/queue"
)

// readBuffer holds a few thousand events.
const readBuffer = 256 << 10

// Source is an open event queue. One goroutine at a time may use it; Close may be called from any.
type Source struct {
	*queue.Queue
	buf []byte
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
	q, err := queue.New(fd, "fanotify")
	if err != nil {
		return nil, err
	}
	return &Source{Queue: q, buf: make([]byte, readBuffer)}, nil
}

// Pending tells how many events are in the queue now. Every event of the past is among them or was read before.
func (s *Source) Pending() (events int, err error) {
	// The kernel counts the fixed part of each event only.
	bytes, err := s.Bytes()
	return bytes / metaSize, err
}

// Read calls fn for the oldest events of the queue, as many as one system call gives, and counts them. It never waits:
// an empty queue gives 0. The Event is valid during the call; its strings may be kept.
func (s *Source) Read(fn func(*Event)) (events int, err error) {
	n, err := s.Queue.Read(s.buf)
	if err != nil {
		return 0, err
	}
	return Parse(s.buf[:n], fn)
}
