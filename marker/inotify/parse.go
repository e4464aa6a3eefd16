package inotify

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// ErrMalformed is what Read returns, wrapped, for bytes that the kernel would not write.
var ErrMalformed = errors.New("malformed inotify event")

// headerSize is that of struct inotify_event; names are padded to a multiple of it.
const headerSize = unix.SizeofInotifyEvent

// raw is one struct inotify_event.
type raw struct {
	watch  ID
	mask   uint32
	cookie uint32 // pairs IN_MOVED_FROM and IN_MOVED_TO
	name   string // "" where it concerns the watched directory itself
}

// has tells whether the event has any of these bits.
func (r *raw) has(bits uint32) bool { return r.mask&bits != 0 }

// parse calls fn for each event in b, what one read returned. It never reads outside b, whatever b holds; an error means
// that the rest of b was dropped.
func parse(b []byte, fn func(*raw)) error {
	for len(b) > 0 {
		if len(b) < headerSize {
			return ErrMalformed
		}
		size := binary.NativeEndian.Uint32(b[12:])
		if uint64(size) > uint64(len(b)-headerSize) {
			return ErrMalformed
		}
		name, _, _ := bytes.Cut(b[headerSize:headerSize+int(size)], []byte{0})
		fn(&raw{watch: ID(int32(binary.NativeEndian.Uint32(b))), mask: binary.NativeEndian.Uint32(b[4:]),
			cookie: binary.NativeEndian.Uint32(b[8:]), name: string(name)})
		b = b[headerSize+int(size):]
	}
	return nil
}
