package wire

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrClosed is what calls give once Close was called.
var ErrClosed = errors.New("the SFTP session is closed")

// ErrProtocol means that the other end does not speak SFTP as it should.
var ErrProtocol = errors.New("the server does not speak SFTP version 3")

// Status codes of the protocol.
const (
	// The numbers are the protocol's (SSH_FX_*).
	statusOK          = 0
	statusEOF         = 1
	statusNoFile      = 2
	statusDenied      = 3
	statusFailure     = 4
	statusBadMessage  = 5
	statusUnsupported = 8
)

// StatusError is the server's refusal of a request. The protocol has one code, "failure", for most reasons: Errno is what
// can be made of it, EIO where nothing can.
type StatusError struct {
	Op   string // the request
	Path string // what it was about, as the server knows it
	// Code is the protocol's number, Msg the server's words, in whatever language.
	Code uint32
	Msg  string // the server's words
}

// Error tells the request and the server's words.
func (e *StatusError) Error() string {
	msg := strings.ToValidUTF8(e.Msg, "?")
	if msg == "" {
		msg = fmt.Sprintf("status %d", e.Code)
	}
	return fmt.Sprintf("sftp %s: %s", e.Op, msg)
}

// Unwrap gives the errno.
func (e *StatusError) Unwrap() error { return e.Errno() }

// Vague tells whether the server gave no reason.
func (e *StatusError) Vague() bool { return e.Code == statusFailure && e.Errno() == unix.EIO }

// Errno is the errno that the code, or the server's words, stand for.
func (e *StatusError) Errno() syscall.Errno {
	switch e.Code {
	case statusNoFile:
		return unix.ENOENT
	case statusDenied:
		return unix.EACCES
	case statusUnsupported:
		return unix.EOPNOTSUPP
	case statusBadMessage:
		return unix.EINVAL
	}
	// Some servers give strerror's text.
	msg := strings.ToLower(e.Msg)
	for _, no := range []syscall.Errno{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EEXIST, unix.ENOTEMPTY, unix.ENOTDIR,
		unix.EISDIR, unix.ENAMETOOLONG, unix.EMLINK, unix.EXDEV, unix.ELOOP, unix.EFBIG} {
		if strings.Contains(msg, no.Error()) {
			return no
		}
	}
	if strings.Contains(msg, "quota") {
		return unix.EDQUOT
	}
	return unix.EIO
}
