package beneath

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

// This file is about file systems that another program serves, or another host by a protocol without lasting handles: FUSE, 9p
// and SMB. The kernel makes their file handles of its own cache: one inode has another handle once the cache let it go, and
// another inode may get the old one. syncfs(2) and fsync(2) of a directory end in the cache too, and succeed.

// ErrMadeUp means that nothing identifies the inodes of a file system for good. What is said around it tells the operator
// what to do.
var ErrMadeUp = errors.New("the inode numbers there are made up anew whenever the cache forgets a file")

// Opaque tells whether another program or host serves the file system of d, so that its handles do not last, and neither
// syncfs nor the fsync of a directory says that something is durable. The fsync of a file does.
func Opaque(d *Dir) bool { return d.lookFlags == unix.AT_STATX_FORCE_SYNC }

// opaque is Opaque by the f_type of statfs(2).
func opaque(kind uint32) bool {
	switch kind {
	case unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return true
	}
	return false
}

// Identifies is nil if the inodes in the directory d can be told apart for good, as a master's must. Its error is ErrMadeUp, with
// the remedy, or that of a call. The first entry tells where d itself does not. d must come from OpenRoot or OpenDir.
func Identifies(d *Dir) error {
	if !Opaque(d) {
		return nil
	}
	if _, err := d.GFID(""); err != nil {
		return err
	}
	list, err := d.OpenDir("")
	if err != nil {
		return err
	}
	defer list.Close()
	enough := errors.New("enough")
	err = list.List(func(e Entry) error {
		if _, err := d.GFID(e.Name); err == nil || errors.Is(err, ErrMadeUp) {
			return errors.Join(enough, err)
		}
		return nil // it went, or does not answer: the next one tells
	})
	if errors.Is(err, enough) && !errors.Is(err, ErrMadeUp) {
		return nil
	}
	return err
}

// glusterGFID is where GlusterFS shows the GFID of an inode, on every mount. It has no namespace of the kernel's, so that nobody can set
// it where another file system takes xattrs.
const glusterGFID = "glusterfs.gfid"

// servedGFID is GFID on an opaque file system: GlusterFS's own, or the inode number that the served file system has for itself. That stands
// for the inode until it is removed. A new inode that gets the number is new to the marker too, so that its xtime differs.
func servedGFID(d *Dir, name string) (xtime.GFID, error) {
	var own xtime.GFID
	switch n, err := d.GetxattrInto(name, glusterGFID, own[:]); {
	case err == nil && n == len(own) && !own.IsZero():
		return own, nil
	case err != nil && !absent(err):
		return xtime.GFID{}, err // the inode number in its place would make another inode of it
	}
	st, err := d.Stat(name)
	if err != nil {
		return xtime.GFID{}, err
	}
	if cachesNumber(d, name, &st) {
		return xtime.GFID{}, pathError("identify", name, fmt.Errorf("%w: mount it with the option use_ino, or replicate from the host "+
			"that has the files", ErrMadeUp))
	}
	return inodeGFID(st), nil
}

// The kernel's own handles of FUSE: the number of the inode in the cache, its generation, and maybe those of the directory.
const (
	fuseHandle   = 0x81
	fuseHandleUp = 0x82
	fuseRootNode = 1
)

// cachesNumber tells whether the inode number is the one that the kernel's cache of a FUSE mount has for it, which libfuse counts up
// from 1. The root always has 1 there.
func cachesNumber(d *Dir, name string, st *Stat) bool {
	h, err := anyHandle(d, name)
	if err != nil || h.Type() != fuseHandle && h.Type() != fuseHandleUp || len(h.Bytes()) < 8 {
		return false
	}
	b := h.Bytes()
	node := uint64(binary.NativeEndian.Uint32(b))<<32 | uint64(binary.NativeEndian.Uint32(b[4:]))
	return node == st.Ino && node != fuseRootNode
}
