package wire

import (
	"encoding/binary"
	"io"
)

// The protocol has requests about one file carried out in the order in which they are sent, so a list of them takes one
// round trip. Servers are known that let others overtake a write: those have no fsync, and wait with a close for what was
// written. There, what has to follow a write follows the close.

// Last is what is still to be done to an open file.
type Last struct {
	Data []byte // to be written at Off, of any length
	Off  int64
	// Sets are attributes to set then, in this order. That an owner alone is refused is no failure, and told in Refused.
	Sets    []Attrs
	Refused error
	Sync    bool // make all of it durable, where the server can
}

// Finish does all of it and closes the file, in one round trip. The handle is closed also when this fails; the error is the
// first that the server told.
func (h *Handle) Finish(l *Last) error {
	waits := h.writes(nil, l.Data, l.Off)
	shut := func() {
		waits = append(waits, h.c.begin("close", h.path, fxClose, func(b []byte) []byte { return appendString(b, h.id) }))
	}
	if !h.c.CanSync() {
		shut()
	}
	for i := range l.Sets {
		wait := h.set(&l.Sets[i])
		if l.Sets[i].Flags != HasOwner {
			waits = append(waits, wait)
			continue
		}
		// The end of the session is a failure all the same.
		waits = append(waits, func() error { l.Refused = wait(); return h.c.Err() })
	}
	if h.c.CanSync() {
		if l.Sync {
			waits = append(waits, h.fsync())
		}
		shut()
	}
	err := all(waits)
	<-h.c.slots
	return err
}

// set sends attributes: by the handle while it is open, by the path where it is closed by then.
func (h *Handle) set(a *Attrs) func() error {
	if h.c.CanSync() {
		return h.c.begin("fsetstat", h.path, fxFsetstat, func(b []byte) []byte { return a.append(appendString(b, h.id)) })
	}
	return h.c.begin("setstat", h.path, fxSetstat, func(b []byte) []byte { return a.append(appendString(b, h.path)) })
}

// WriteAll writes any number of bytes and makes them durable if sync says so and the server can, in one round trip.
func (h *Handle) WriteAll(data []byte, off int64, sync bool) error {
	waits := h.writes(nil, data, off)
	if sync && h.c.CanSync() {
		waits = append(waits, h.fsync())
	}
	return all(waits)
}

// writes sends data in pieces.
func (h *Handle) writes(waits []func() error, data []byte, off int64) []func() error {
	for len(data) > 0 {
		piece, at := data[:min(h.c.write, len(data))], off
		data, off = data[len(piece):], off+int64(len(piece))
		waits = append(waits, h.c.begin("write", h.path, fxWrite, func(b []byte) []byte {
			return appendString(binary.BigEndian.AppendUint64(appendString(b, h.id), uint64(at)), piece)
		}))
	}
	return waits
}

// fsync sends the request; what it gives waits for the answer.
func (h *Handle) fsync() func() error {
	return h.c.begin("fsync", h.path, fxExtended, func(b []byte) []byte { return appendString(appendString(b, extFsync), h.id) })
}

// all waits for every answer and gives the first error.
func all(waits []func() error) (first error) {
	for _, wait := range waits {
		if err := wait(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Begin reads what one request can from the beginning of the file, and tells its size, -1 where the server does not, in one
// round trip.
func (h *Handle) Begin() (data []byte, size int64, err error) {
	size = -1
	stat := h.c.sent(fxFstat, func(b []byte) []byte { return appendString(b, h.id) })
	data, err = h.Read(0, h.c.read)
	if err == io.EOF {
		err = nil
	}
	if d, serr := h.c.taken("fstat", h.path, fxAttrs, stat); serr == nil {
		if a := d.attrs(); d.err == nil && a.Flags&HasSize != 0 {
			size = a.Size
		}
	}
	return data, size, err
}
