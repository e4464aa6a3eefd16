package sftp

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"testing"
)

// Packet types of the protocol that tests look at.
const (
	typeVersion = 2
	typeRead    = 5
	typeLstat   = 7
	typeOpendir = 11
	typeSymlink = 20
	typeStatus  = 101
)

// odd is a stream to a server that is made odd: what it offers, which requests it refuses, and when it is cut.
type odd struct {
	inner io.ReadWriteCloser
	bare  bool                               // offers no extensions
	ask   func(kind byte) (refuse, cut bool) // of each request

	out  *io.PipeReader
	in   *io.PipeWriter
	mu   sync.Mutex // of in
	rest []byte     // of a request that is not whole yet
}

func newOdd(inner io.ReadWriteCloser, bare bool, ask func(byte) (bool, bool)) *odd {
	o := &odd{inner: inner, bare: bare, ask: ask}
	o.out, o.in = io.Pipe()
	go o.copy()
	return o
}

// copy brings answers over, whole packets at a time, so that others can be put between.
func (o *odd) copy() {
	r := bufio.NewReader(o.inner)
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			o.in.CloseWithError(io.EOF)
			return
		}
		p := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(r, p); err != nil {
			o.in.CloseWithError(io.EOF)
			return
		}
		if o.bare && p[0] == typeVersion {
			p = p[:5]
		}
		o.answer(p)
	}
}

func (o *odd) answer(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = o.in.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...)) // whoever reads may be gone
}

func (o *odd) Read(p []byte) (int, error) { return o.out.Read(p) }

func (o *odd) Write(p []byte) (int, error) {
	o.rest = append(o.rest, p...)
	for len(o.rest) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(o.rest))
		if len(o.rest) < n {
			break
		}
		packet := bytes.Clone(o.rest[:n])
		o.rest = o.rest[n:]
		refuse, cut := o.ask(packet[4])
		switch {
		case cut:
			o.Close()
			return 0, io.ErrClosedPipe
		case refuse:
			status := append([]byte{typeStatus}, packet[5:9]...)
			status = append(status, 0, 0, 0, 8, 0, 0, 0, 2, 'n', 'o', 0, 0, 0, 0)
			go o.answer(status)
		default:
			if _, err := o.inner.Write(packet); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (o *odd) Close() error {
	o.out.Close()
	return o.inner.Close()
}

// bare is OpenSSH's server without any extension: no posix-rename, links, fsync or statvfs.
func bare(t testing.TB) (io.ReadWriteCloser, error) {
	inner, err := program(t)
	if err != nil {
		return nil, err
	}
	return newOdd(inner, true, func(byte) (bool, bool) { return false, false }), nil
}

// linkless refuses symbolic links.
func linkless(t testing.TB) (io.ReadWriteCloser, error) {
	inner, err := program(t)
	if err != nil {
		return nil, err
	}
	return newOdd(inner, false, func(kind byte) (bool, bool) { return kind == typeSymlink, false }), nil
}
