package fanotify

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// ErrMalformed is what Parse returns for bytes that the kernel would not write.
var ErrMalformed = errors.New("malformed fanotify event")

// Place is one entry: a name in the directory with that handle. "." is the directory itself.
type Place struct {
	Dir  beneath.HandleKey
	Name string
}

// Event is one record of the queue. The kernel merges events of one process on one object, so Mask may have several
// bits.
type Event struct {
	Mask   uint64
	PID    int32             // 0 where the process lies outside this PID namespace
	At     Place             // where it happened; no Dir where the kernel does not know
	From   Place             // FAN_RENAME: the old name; At is the new one. Either may be missing
	Target beneath.HandleKey // the inode itself, where the kernel tells
}

// Overflow tells that the queue was full and that events after this one were lost.
func (e *Event) Overflow() bool { return e.Mask&unix.FAN_Q_OVERFLOW != 0 }

// IsDir tells whether the inode is a directory.
func (e *Event) IsDir() bool { return e.Mask&unix.FAN_ONDIR != 0 }

const (
	metaSize = 24 // struct fanotify_event_metadata
	infoSize = 12 // struct fanotify_event_info_header and the fsid
	fidSize  = infoSize + 8
)

// Parse calls fn for each event in b, what one read returned, and counts them. It never reads outside b, whatever b
// holds; an error means that the rest of b was dropped.
func Parse(b []byte, fn func(*Event)) (events int, err error) {
	for len(b) > 0 {
		if len(b) < metaSize {
			return events, ErrMalformed
		}
		size, meta := int(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint16(b[6:]))
		if b[4] != unix.FANOTIFY_METADATA_VERSION || meta < metaSize || size < meta || size > len(b) {
			return events, ErrMalformed
		}
		ev := Event{Mask: binary.NativeEndian.Uint64(b[8:]), PID: int32(binary.NativeEndian.Uint32(b[20:]))}
		if err := ev.parseInfo(b[meta:size]); err != nil {
			return events, err
		}
		fn(&ev)
		events++
		b = b[size:]
	}
	return events, nil
}

// parseInfo reads the information records of one event. Types it does not know are skipped, as fanotify(7) asks.
func (e *Event) parseInfo(b []byte) error {
	for len(b) > 0 {
		if len(b) < 4 {
			return ErrMalformed
		}
		size := int(binary.NativeEndian.Uint16(b[2:]))
		if size < 4 || size > len(b) {
			return ErrMalformed
		}
		if err := e.parseRecord(b[0], b[:size]); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

func (e *Event) parseRecord(kind byte, b []byte) (err error) {
	switch kind {
	case unix.FAN_EVENT_INFO_TYPE_FID:
		p, err := parsePlace(b)
		e.Target = p.Dir
		return err
	case unix.FAN_EVENT_INFO_TYPE_DFID, unix.FAN_EVENT_INFO_TYPE_DFID_NAME, unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME:
		e.At, err = parsePlace(b)
	case unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME:
		e.From, err = parsePlace(b)
	}
	return err
}

// parsePlace reads a header, an fsid, a struct file_handle and, where there is one, the name up to its NUL.
func parsePlace(b []byte) (Place, error) {
	if len(b) < fidSize {
		return Place{}, ErrMalformed
	}
	size, kind := binary.NativeEndian.Uint32(b[infoSize:]), binary.NativeEndian.Uint32(b[infoSize+4:])
	rest := b[fidSize:]
	if uint64(size) > uint64(len(rest)) {
		return Place{}, ErrMalformed
	}
	p := Place{Dir: beneath.MakeHandleKey(int32(kind), rest[:size])}
	if name, _, ok := bytes.Cut(rest[size:], []byte{0}); ok {
		p.Name = string(name)
	}
	return p, nil
}
