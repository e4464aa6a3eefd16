package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"reflect"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// packet frames what a server sends.
func packet(kind byte, rest ...[]byte) []byte {
	body := append([]byte{kind}, slices.Concat(rest...)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func text(s string) []byte { return appendString(nil, s) }

// answer is what a server says to a request; nothing where kind is 0.
type answer struct {
	kind byte
	body []byte
}

var fine = answer{fxStatus, number(statusOK)}

// serve is a server that answers by a function, and offers extensions. It ends with its stream.
func serve(t testing.TB, ext []string, do func(kind byte, body []byte) answer) *Client {
	near, far := net.Pipe()
	var ended sync.WaitGroup
	ended.Go(func() {
		defer far.Close()
		if _, err := readPacket(far); err != nil {
			return
		}
		hello := number(version)
		for _, e := range ext {
			hello = slices.Concat(hello, text(e), text("1"))
		}
		if _, err := far.Write(packet(fxVersion, hello)); err != nil {
			return
		}
		for {
			p, err := readPacket(far)
			if err != nil {
				return
			}
			if a := do(p[0], p[5:]); a.kind != 0 {
				if _, err := far.Write(packet(a.kind, p[1:5], a.body)); err != nil {
					return
				}
			}
		}
	})
	c, err := New(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		ended.Wait()
	})
	return c
}

// everything makes each kind of request once.
func everything(t *testing.T, c *Client) {
	h := &Handle{c: c, id: "h", path: "p"}
	hold := func() { c.slots <- struct{}{} } // what closing a handle gives back
	if list, err := h.Readdir(); err == nil {
		n := 0
		if err := list.Each(func(Name) error { n++; return nil }); err == nil && n != list.Len() || n > maxPacket/12 {
			t.Errorf("%d names in one packet, of %d", n, list.Len())
		}
	}
	if data, err := h.Read(0, 10); err == nil && len(data) > 10 {
		t.Errorf("%d bytes where 10 were asked for", len(data))
	}
	if data, _, err := h.Begin(); err == nil && len(data) > c.read {
		t.Errorf("%d bytes at once", len(data))
	}
	_, _ = h.Stat()
	_, _ = c.Lstat("p")
	_, _ = c.Readlink("p")
	_, _ = c.Realpath("p")
	_, _ = c.Statvfs("p")
	_ = h.Write([]byte("x"), 0)
	hold()
	_ = h.Finish(&Last{Data: []byte("x"), Sets: []Attrs{{Flags: HasOwner}, {Flags: HasMode}}, Sync: true})
	for _, open := range []func() (*Handle, error){
		func() (*Handle, error) { return c.Open("p", OpenRead, Attrs{}) }, func() (*Handle, error) { return c.Opendir("p") }} {
		if h, err := open(); err == nil {
			h.Release()
		}
	}
}

func FuzzAnswer(f *testing.F) {
	a := Attrs{Flags: HasSize | HasOwner | HasMode | HasTimes, Size: 5, UID: 1, GID: 2, Mode: 3, Atime: 4, Mtime: 5}
	for kind, body := range map[byte][]byte{
		fxStatus: append(number(statusFailure), text("No space left on device")...), fxHandle: text("handle"), fxData: text("data"),
		fxAttrs: a.append(nil), fxName: slices.Concat(number(1), text("n"), text("long"), a.append(nil)),
		fxExtendedReply: make([]byte, 88)} {
		f.Add(kind, body)
	}
	f.Add(byte(fxAttrs), append(number(hasMore), number(1<<32-1)...))
	f.Add(byte(fxName), number(1<<31))
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		if kind == 0 || len(body) > maxPacket-5 {
			return
		}
		everything(t, serve(t, []string{extFsync, extStatvfs}, func(byte, []byte) answer { return answer{kind, body} }))
	})
}

func FuzzHello(f *testing.F) {
	f.Add(packet(fxVersion, number(version), text(extFsync), text("1")))
	f.Add(append(packet(fxVersion, number(version), text("limits@openssh.com"), text("1")),
		packet(fxExtendedReply, number(0), make([]byte, 32))...))
	f.Add([]byte("Welcome to this host\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := New(t.Context(), stream{bytes.NewReader(b)})
		if err != nil {
			return
		}
		_, _ = c.Lstat("p")
		c.Close()
		if c.Handles() < 1 || c.Handles() > mostHandles || c.MaxWrite() < 1 || c.MaxWrite() > 255<<10 || c.read < readSize {
			t.Errorf("%d handles, writes of %d, reads of %d", c.Handles(), c.MaxWrite(), c.read)
		}
	})
}

// stream is a server that hears nothing.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

// TestFinish: one list of requests in the order that servers need, and the first error counts; a refused owner is none.
func TestFinish(t *testing.T) {
	for _, c := range []struct {
		name   string
		ext    []string
		refuse byte
		want   []byte
		errno  error
	}{
		{"syncs", []string{extFsync}, 0, []byte{fxWrite, fxWrite, fxFsetstat, fxFsetstat, fxExtended, fxClose}, nil},
		{"syncs not", nil, 0, []byte{fxWrite, fxWrite, fxClose, fxSetstat, fxSetstat}, nil},
		{"full", []string{extFsync}, fxWrite, []byte{fxWrite, fxWrite, fxFsetstat, fxFsetstat, fxExtended, fxClose}, unix.ENOSPC},
		{"told late", nil, fxClose, []byte{fxWrite, fxWrite, fxClose, fxSetstat, fxSetstat}, unix.ENOSPC},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []byte
			client := serve(t, c.ext, func(kind byte, body []byte) answer {
				got = append(got, kind)
				owner := bytes.Contains(body, (&Attrs{Flags: HasOwner, UID: 7, GID: 7}).append(nil))
				switch {
				case kind == fxOpen:
					return answer{fxHandle, text("h")}
				case kind == c.refuse:
					return answer{fxStatus, append(number(statusFailure), text("No space left on device")...)}
				case owner:
					return answer{fxStatus, number(statusDenied)}
				}
				return fine
			})
			h, err := client.Open("p", OpenWrite, Attrs{})
			if err != nil {
				t.Fatal(err)
			}
			got = nil
			l := Last{Data: make([]byte, client.MaxWrite()+1), Sync: true, Sets: []Attrs{{Flags: HasOwner, UID: 7, GID: 7}, {Flags: HasMode}}}
			if err := h.Finish(&l); !errors.Is(err, c.errno) || !errors.Is(l.Refused, unix.EACCES) {
				t.Errorf("%v, owner %v", err, l.Refused)
			}
			if !bytes.Equal(got, c.want) {
				t.Errorf("asked for %v, want %v", got, c.want)
			}
			if len(client.slots) != 0 {
				t.Errorf("%d handles are held", len(client.slots))
			}
		})
	}
}

// TestLost: the end of the session ends every call, those that wait for a handle too, and each that comes later.
func TestLost(t *testing.T) {
	for name, end := range map[string]func(*Client){
		"closed": func(c *Client) { c.Close() }, "by the server": func(c *Client) { c.stream.Close() }} {
		t.Run(name, func(t *testing.T) {
			silent := serve(t, nil, func(kind byte, _ []byte) answer {
				if kind == fxOpen {
					return answer{fxHandle, text("h")}
				}
				return answer{}
			})
			for range leastHandles {
				if _, err := silent.Open("p", OpenRead, Attrs{}); err != nil {
					t.Fatal(err)
				}
			}
			errs := make(chan error, 2)
			go func() { _, err := silent.Open("p", OpenRead, Attrs{}); errs <- err }()
			go func() { _, err := silent.Lstat("p"); errs <- err }()
			end(silent)
			for range 2 {
				if err := <-errs; err == nil {
					t.Error("a call ended well")
				}
			}
			<-silent.Done()
			if _, err := silent.Lstat("p"); err == nil || silent.Err() == nil {
				t.Error("a dead session goes on")
			}
		})
	}
}

// TestStray: an answer that nobody asked for, and one of the wrong kind, are no SFTP.
func TestStray(t *testing.T) {
	if _, err := New(context.Background(), stream{bytes.NewReader(packet(fxVersion, number(2)))}); !errors.Is(err, ErrProtocol) {
		t.Errorf("version 2: %v", err)
	}
	c := serve(t, nil, func(byte, []byte) answer { return answer{fxName, number(0)} })
	if _, err := c.Lstat("p"); !errors.Is(err, ErrProtocol) {
		t.Errorf("names for attributes: %v", err)
	}
	if _, err := c.Readlink("p"); !errors.Is(err, ErrProtocol) {
		t.Errorf("a link without a target: %v", err)
	}
	stray := append(packet(fxVersion, number(version)), packet(fxStatus, number(9), number(0))...)
	c, err := New(context.Background(), stream{bytes.NewReader(stray)})
	if err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if !errors.Is(c.Err(), ErrProtocol) {
		t.Errorf("a stray answer: %v", c.Err())
	}
	c.Close()
}

// TestAttrs: what is sent is what is read, and what is flagged alone.
func TestAttrs(t *testing.T) {
	whole := Attrs{Size: 1 << 40, UID: 1, GID: 2, Mode: 0o100644, Atime: 3, Mtime: 4}
	for flags := range uint32(16) {
		a := whole
		a.Flags = flags
		d := decoder{b: a.append(nil)}
		got := d.attrs()
		for flag, clear := range map[uint32]func(){HasSize: func() { a.Size = 0 }, HasOwner: func() { a.UID, a.GID = 0, 0 },
			HasMode: func() { a.Mode = 0 }, HasTimes: func() { a.Atime, a.Mtime = 0, 0 }} {
			if flags&flag == 0 {
				clear()
			}
		}
		if d.err != nil || len(d.b) != 0 || !reflect.DeepEqual(got, a) {
			t.Errorf("flags %x: %+v, %v", flags, got, d.err)
		}
	}
}

// TestErrno: the reason that can be made of what servers say.
func TestErrno(t *testing.T) {
	for _, c := range []struct {
		code uint32
		msg  string
		want error
	}{
		{statusNoFile, "", unix.ENOENT}, {statusDenied, "x", unix.EACCES}, {statusUnsupported, "", unix.EOPNOTSUPP},
		{statusBadMessage, "", unix.EINVAL}, {statusFailure, "Failure", unix.EIO}, {statusFailure, "No space left on device", unix.ENOSPC},
		{statusFailure, "write: disk quota exceeded", unix.EDQUOT}, {statusFailure, "Quota is used up", unix.EDQUOT},
		{statusFailure, "mkdir x: file exists", unix.EEXIST}, {statusFailure, "Read-only file system", unix.EROFS},
	} {
		e := &StatusError{Op: "open", Path: "p", Code: c.code, Msg: c.msg}
		if !errors.Is(e, c.want) || e.Vague() != (c.want == unix.EIO) {
			t.Errorf("%d %q is %v, vague %v", c.code, c.msg, e.Errno(), e.Vague())
		}
	}
}
