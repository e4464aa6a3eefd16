package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unicode/utf8"

	"georep/slave"
)

var (
	// ErrNoAgent: what runs at the far end is not georep's agent. The message quotes what it said instead.
	ErrNoAgent = errors.New("no georep there")
	// ErrSilent: the other end has said nothing for so long that it is taken for dead.
	ErrSilent = errors.New("the other end fell silent")
)

// sentinels are the errors that keep their identity on the wire. An error's place is its code: append only.
var sentinels = [...]error{
	slave.ErrConflict, slave.ErrNeedContent, slave.ErrHeldBack, slave.ErrSource, slave.ErrInvalid,
	slave.ErrVersion, slave.ErrNoVolume, slave.ErrNotEmpty, slave.ErrForeign, slave.ErrBusy, slave.ErrUnfit,
	context.Canceled, context.DeadlineExceeded,
	fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, fs.ErrInvalid, fs.ErrClosed, errors.ErrUnsupported,
	slave.ErrMoved, slave.ErrXattrRoom, slave.ErrPolicy, slave.ErrAbsent, slave.ErrLimit, slave.ErrPromoted,
}

// remoteError is an error of the other end: its text, and what errors.Is and errors.As shall find.
// errors.Is finds the errno or sentinel that it was there, so a caller decides on it as on an error
// of its own host.
type remoteError struct {
	text   string
	causes []error
}

// Error is the text that the error had where it happened.
func (e *remoteError) Error() string { return e.text }

// Unwrap gives the errno and the sentinels that the error was, or wrapped.
func (e *remoteError) Unwrap() []error { return e.causes }

const (
	errNone  = 0
	errPlain = 1
	errPath  = 2
)

// appendError encodes err, which may be nil. An errno and the known sentinels survive the way;
// everything else becomes text, cut to maxText bytes.
func appendError(b []byte, err error) []byte {
	if err == nil {
		return append(b, errNone)
	}
	pe, ok := err.(*slave.PathError) // only the outermost: one that is wrapped is in the text already
	if !ok {
		return appendCause(append(b, errPlain), err)
	}
	b = appendStr(append(b, errPath), clip(pe.Op, maxErrOp))
	b = appendStr(b, clip(pe.Path, maxErrPath))
	return appendCause(b, pe.Err)
}

// appendCause encodes what an error is, apart from its being a PathError. Of an error with several errnos in its tree
// the first counts, as for slave.Errno.
func appendCause(b []byte, err error) []byte {
	if err == nil {
		err = errors.New("unknown error")
	}
	errno := slave.Errno(err)
	var codes uint64
	for i, s := range sentinels {
		// What the errno says by itself needs no code.
		if errors.Is(err, s) && (errno == 0 || !errno.Is(s)) {
			codes |= 1 << i
		}
	}
	b = binary.AppendUvarint(b, uint64(errno))
	b = binary.AppendUvarint(b, codes)
	return appendStr(b, clip(err.Error(), maxText))
}

// error decodes what appendError made.
func (d *decoder) error() error {
	switch kind := d.u8(); kind {
	case errNone:
		return nil
	case errPlain:
		return d.cause()
	case errPath:
		op, path := d.text(maxErrOp), d.str(maxErrPath)
		return &slave.PathError{Op: op, Path: path, Err: d.cause()}
	default:
		d.fail("error of unknown kind %d", kind)
		return nil
	}
}

// text takes what is shown to people. To be printable it may have to be longer; it is cut then. It
// is safe for a terminal and a log.
func (d *decoder) text(limit int) string {
	s := printable(d.str(limit))
	if len(s) <= limit {
		return s
	}
	return strings.Clone(strings.ToValidUTF8(clip(s, limit), ""))
}

// someError is error where nil is not allowed.
func (d *decoder) someError() error {
	err := d.error()
	if err == nil {
		d.fail("an error is missing")
	}
	return err
}

// cause decodes what appendCause made. An error that is nothing but an errno or a sentinel comes
// back as just that. Codes of a newer version that this one does not know are passed over.
func (d *decoder) cause() error {
	errno := syscall.Errno(d.u32())
	codes := d.uvarint(math.MaxUint64)
	e := &remoteError{text: d.text(maxText)}
	if errno != 0 {
		e.causes = append(e.causes, errno)
	}
	for i, s := range sentinels {
		if codes&(1<<i) != 0 {
			e.causes = append(e.causes, s)
		}
	}
	if len(e.causes) == 1 && e.causes[0].Error() == e.text {
		return e.causes[0]
	}
	return e
}

// sourceError says that the cause struck the master's end, if it does not say so itself.
func sourceError(cause error) error {
	if errors.Is(cause, slave.ErrSource) {
		return cause
	}
	return fmt.Errorf("%w: %w", slave.ErrSource, cause)
}

// printable escapes what a terminal might act on: control characters and bytes that are not UTF-8.
// It is applied to everything that the other end said and a person may read.
func printable(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case unprintable(r):
			out.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			out.WriteRune(r)
		}
		i += n
	}
	return out.String()
}

// unprintable also takes the replacement character for suspicious: it is what bad UTF-8 decodes to.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
