package wire

import (
	"encoding/binary"
	"io"
)

// Flags of Open.
const (
	OpenRead   = 1
	OpenWrite  = 2
	OpenCreate = 8
	OpenTrunc  = 16
	OpenExcl   = 32
)

// Extensions that are used where they are offered.
const (
	// extRename is rename(2), which replaces what is there; the protocol's own rename may not.
	extRename  = "posix-rename@openssh.com"
	extLink    = "hardlink@openssh.com"
	extFsync   = "fsync@openssh.com"
	extStatvfs = "statvfs@openssh.com"
	// extLset is setstat that does not follow symbolic links.
	extLset = "lsetstat@openssh.com"
)

// CanReplace tells whether PosixRename works, CanLink whether Link does, and so on.
func (c *Client) CanReplace() bool { return c.Has(extRename) }

// CanLink tells whether the server makes hard links.
func (c *Client) CanLink() bool { return c.Has(extLink) }

// CanSync tells whether Fsync works.
func (c *Client) CanSync() bool { return c.Has(extFsync) }

// CanSetLink tells whether LSetstat works.
func (c *Client) CanSetLink() bool { return c.Has(extLset) }

// status is the error that a status packet stands for; anything else is no answer to op.
func status(op, path string, r reply) error {
	if r.kind != fxStatus {
		return ErrProtocol
	}
	d := decoder{b: r.data}
	code := d.uint32()
	if d.err != nil {
		return ErrProtocol
	}
	switch code {
	case statusOK:
		return nil
	case statusEOF:
		return io.EOF
	}
	msg := string(d.bytes()) // some servers leave it out
	return &StatusError{Op: op, Path: path, Code: code, Msg: msg}
}

// begin sends a request whose answer is a status; what it gives waits for that.
func (c *Client) begin(op, path string, kind byte, body func([]byte) []byte) func() error {
	wait := c.sent(kind, body)
	return func() error {
		r, err := wait()
		if err != nil {
			return err
		}
		return status(op, path, r)
	}
}

// simple is begin, and waits.
func (c *Client) simple(op, path string, kind byte, body func([]byte) []byte) error {
	return c.begin(op, path, kind, body)()
}

// asked gives the answer's data if it is of the kind that was asked for.
func (c *Client) asked(op, path string, kind, want byte, body func([]byte) []byte) (*decoder, error) {
	return c.taken(op, path, want, c.sent(kind, body))
}

// taken is the second half of asked.
func (c *Client) taken(op, path string, want byte, wait func() (reply, error)) (*decoder, error) {
	r, err := wait()
	if err != nil {
		return nil, err
	}
	if r.kind != want {
		if err := status(op, path, r); err != nil {
			return nil, err
		}
		return nil, ErrProtocol
	}
	return &decoder{b: r.data}, nil
}

// Handle is an open file or directory.
type Handle struct {
	c *Client
	// id is the server's word for it, any bytes; path is for errors, and for set once the handle is closed.
	id   string
	path string
}

// open waits for a free handle.
func (c *Client) open(op, path string, kind byte, body func([]byte) []byte) (*Handle, error) {
	select {
	// Given back by Close, Release and Finish.
	case c.slots <- struct{}{}:
	case <-c.done:
		return nil, c.Err()
	}
	d, err := c.asked(op, path, kind, fxHandle, body)
	if err == nil {
		h := &Handle{c: c, id: string(d.bytes()), path: path}
		if d.err == nil {
			return h, nil
		}
		err = ErrProtocol
	}
	<-c.slots
	return nil, err
}

// Open opens a file; attrs are those of a new one, where the server heeds them. The caller closes the handle.
func (c *Client) Open(path string, flags uint32, attrs Attrs) (*Handle, error) {
	return c.open("open", path, fxOpen, func(b []byte) []byte {
		return attrs.append(binary.BigEndian.AppendUint32(appendString(b, path), flags))
	})
}

// Opendir opens a directory to be read.
func (c *Client) Opendir(path string) (*Handle, error) {
	return c.open("opendir", path, fxOpendir, func(b []byte) []byte { return appendString(b, path) })
}

// Close closes the handle and waits for the answer, in which some servers tell that data could not be written.
func (h *Handle) Close() error {
	err := h.c.simple("close", h.path, fxClose, func(b []byte) []byte { return appendString(b, h.id) })
	<-h.c.slots
	return err
}

// Release closes a handle of which nothing depends any more, without waiting.
func (h *Handle) Release() {
	h.c.start(fxClose, func(b []byte) []byte { return appendString(b, h.id) }, func(reply, error) { <-h.c.slots })
}

// Write writes up to MaxWrite bytes.
func (h *Handle) Write(data []byte, off int64) error {
	return h.c.simple("write", h.path, fxWrite, func(b []byte) []byte {
		return appendString(binary.BigEndian.AppendUint64(appendString(b, h.id), uint64(off)), data)
	})
}

// Read reads up to n bytes, which may be fewer; io.EOF at the end.
func (h *Handle) Read(off int64, n int) ([]byte, error) {
	d, err := h.c.asked("read", h.path, fxRead, fxData, func(b []byte) []byte {
		b = binary.BigEndian.AppendUint64(appendString(b, h.id), uint64(off))
		return binary.BigEndian.AppendUint32(b, uint32(n))
	})
	if err != nil {
		return nil, err
	}
	data := d.bytes()
	if d.err != nil || len(data) > n {
		return nil, ErrProtocol
	}
	return data, nil
}

// Stat gives the attributes of the open file.
func (h *Handle) Stat() (Attrs, error) {
	return h.c.attrs("fstat", h.path, fxFstat, func(b []byte) []byte { return appendString(b, h.id) })
}

// Setstat sets the attributes that are flagged.
func (h *Handle) Setstat(a Attrs) error {
	return h.c.simple("fsetstat", h.path, fxFsetstat, func(b []byte) []byte { return a.append(appendString(b, h.id)) })
}

// Fsync makes the file durable. Only where CanSync.
func (h *Handle) Fsync() error { return h.fsync()() }

// Readdir gives the next names of a directory, "." and ".." among them, and io.EOF after the last.
func (h *Handle) Readdir() (Names, error) {
	d, err := h.c.asked("readdir", h.path, fxReaddir, fxName, func(b []byte) []byte { return appendString(b, h.id) })
	if err != nil {
		return Names{}, err
	}
	return d.names()
}

func (d *decoder) names() (Names, error) {
	n := d.uint32()
	// Twelve bytes are the least that a name takes.
	if d.err != nil || int(n) > len(d.b)/12 {
		return Names{}, ErrProtocol
	}
	return Names{n: int(n), b: d.b}, nil
}

// Names are those of one answer, in the form in which they came: they take no more memory than that.
type Names struct {
	n int
	b []byte
}

// Len tells how many they are.
func (l Names) Len() int { return l.n }

// Size is how many bytes of memory they take.
func (l Names) Size() int64 { return int64(len(l.b)) }

// Each calls fn for each, until it returns an error. Each name comes with a line for people, as ls -l writes it, which is left.
func (l Names) Each(fn func(Name) error) error {
	d := decoder{b: l.b}
	for range l.n {
		name := string(d.bytes())
		d.bytes()
		n := Name{Name: name, Attrs: d.attrs()}
		if d.err != nil {
			return ErrProtocol
		}
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

// attrs sends a request that is answered with attributes.
func (c *Client) attrs(op, path string, kind byte, body func([]byte) []byte) (Attrs, error) {
	d, err := c.asked(op, path, kind, fxAttrs, body)
	if err != nil {
		return Attrs{}, err
	}
	a := d.attrs()
	if d.err != nil {
		return Attrs{}, ErrProtocol
	}
	return a, nil
}

// Lstat gives the attributes of what stands at path, itself.
func (c *Client) Lstat(path string) (Attrs, error) {
	return c.attrs("lstat", path, fxLstat, func(b []byte) []byte { return appendString(b, path) })
}

// Setstat sets the attributes that are flagged; it follows symbolic links.
func (c *Client) Setstat(path string, a Attrs) error {
	return c.simple("setstat", path, fxSetstat, func(b []byte) []byte { return a.append(appendString(b, path)) })
}

// LSetstat does not follow symbolic links. Only where CanSetLink.
func (c *Client) LSetstat(path string, a Attrs) error {
	return c.simple("lsetstat", path, fxExtended, func(b []byte) []byte {
		return a.append(appendString(appendString(b, extLset), path))
	})
}

// Remove removes anything but a directory.
func (c *Client) Remove(path string) error {
	return c.simple("remove", path, fxRemove, func(b []byte) []byte { return appendString(b, path) })
}

// Mkdir makes a directory.
func (c *Client) Mkdir(path string, a Attrs) error {
	return c.simple("mkdir", path, fxMkdir, func(b []byte) []byte { return a.append(appendString(b, path)) })
}

// Rmdir removes an empty directory.
func (c *Client) Rmdir(path string) error {
	return c.simple("rmdir", path, fxRmdir, func(b []byte) []byte { return appendString(b, path) })
}

// Rename is the protocol's own, which most servers refuse where there is something at to.
func (c *Client) Rename(from, to string) error {
	return c.simple("rename", to, fxRename, func(b []byte) []byte { return appendString(appendString(b, from), to) })
}

// two is an extended request about two paths.
func (c *Client) two(op, ext, from, to string) error {
	return c.simple(op, to, fxExtended, func(b []byte) []byte {
		return appendString(appendString(appendString(b, ext), from), to)
	})
}

// PosixRename replaces what is at to. Only where CanReplace.
func (c *Client) PosixRename(from, to string) error {
	return c.two("posix-rename", extRename, from, to)
}

// Link makes to a further name of from. Only where CanLink.
func (c *Client) Link(from, to string) error { return c.two("hardlink", extLink, from, to) }

// Symlink makes a symbolic link at path. The order is OpenSSH's, which servers follow rather than the draft's.
func (c *Client) Symlink(target, path string) error {
	return c.simple("symlink", path, fxSymlink, func(b []byte) []byte { return appendString(appendString(b, target), path) })
}

// Readlink reads a symbolic link.
func (c *Client) Readlink(path string) (string, error) {
	return c.oneName("readlink", path, fxReadlink)
}

// Realpath makes a path absolute.
func (c *Client) Realpath(path string) (string, error) {
	return c.oneName("realpath", path, fxRealpath)
}

// oneName sends a request that is answered with one name.
func (c *Client) oneName(op, path string, kind byte) (string, error) {
	d, err := c.asked(op, path, kind, fxName, func(b []byte) []byte { return appendString(b, path) })
	if err != nil {
		return "", err
	}
	names, err := d.names()
	if err != nil || names.n != 1 {
		return "", ErrProtocol
	}
	err = names.Each(func(n Name) error { path = n.Name; return nil })
	return path, err
}

// Space is what a file system has left for an ordinary user.
type Space struct {
	// Bytes and inodes that are free; Inodes is -1 where the file system does not count them, as btrfs does not.
	Free, Inodes int64
	ReadOnly     bool
}

// CanSpace tells whether Statvfs works.
func (c *Client) CanSpace() bool { return c.Has(extStatvfs) }

// Statvfs tells how much room there is. Only where CanSpace.
func (c *Client) Statvfs(path string) (Space, error) {
	d, err := c.asked("statvfs", path, fxExtended, fxExtendedReply, func(b []byte) []byte {
		return appendString(appendString(b, extStatvfs), path)
	})
	if err != nil {
		return Space{}, err
	}
	var v [11]uint64
	for i := range v {
		v[i] = d.uint64()
	}
	if d.err != nil {
		return Space{}, ErrProtocol
	}
	// The numbers are those of statvfs(3) in its order: bsize, frsize, blocks, bfree, bavail, files, ffree, favail,
	// fsid, flag, namemax. Blocks are counted in frsize.
	unit := v[1]
	if unit == 0 {
		unit = v[0]
	}
	inodes := int64(v[7])
	if v[5] == 0 {
		inodes = -1
	}
	return Space{Free: int64(v[4] * unit), Inodes: inodes, ReadOnly: v[9]&1 != 0}, nil
}
