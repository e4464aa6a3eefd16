package disk

import (
	"fmt"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// showsXattrs are the file systems that count the xattrs of an inode among its blocks.
var showsXattrs = map[int64]bool{unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true}

// xattrs counts those that an entry is about to get; done counts what they came to. With max-bytes an entry may have no more than charge
// expects of an inode.
func (u *usage) xattrs(i *beneath.Inode, m *slave.Meta) (done func(), err error) {
	if u == nil {
		return func() {}, nil
	}
	want := int64(0)
	for k := range m.Xattrs {
		want += int64(len(m.Xattrs[k].Name) + len(m.Xattrs[k].Value))
	}
	if want > xattrBytes && u.limitsBytes() {
		return nil, fmt.Errorf("%w: %d bytes, and max-bytes lets an entry have %d", slave.ErrXattrRoom, want, int64(xattrBytes))
	}
	if u.shows {
		return func() {}, nil
	}
	had := u.hidden(i)
	more := max(want-had, 0)
	if err := u.take(room{bytes: more}); err != nil {
		return nil, err
	}
	return func() { u.correct(u.hidden(i) - had - more) }, nil
}

// limitsBytes tells whether bytes count at all.
func (u *usage) limitsBytes() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.limit.bytes > 0
}

// hidden is what the xattrs of an inode come to that its blocks do not show. What cannot be read
// counts for nothing. Zero where the file system counts them among the blocks, or where there are
// no limits.
func (u *usage) hidden(i *beneath.Inode) int64 {
	if u == nil || u.shows {
		return 0
	}
	n, err := i.XattrBytes(u.own)
	if err != nil {
		return 0
	}
	return n
}
