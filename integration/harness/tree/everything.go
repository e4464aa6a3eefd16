package tree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// regularFiles makes files around the sizes at which programs change their ways.
func (b *builder) regularFiles() {
	b.mkdir("files")
	for name, size := range map[string]int{
		"empty": 0, "one-byte": 1, "page": 4096, "page+1": 4097, "block": 128 << 10, "mebibyte+1": 1<<20 + 1,
	} {
		b.file("files/"+name, size)
	}
	b.do("file of zeros", os.WriteFile(b.path("files/zeros"), make([]byte, 200_000), 0o644))
}

// modes makes a file of every kind of mode, of none at all too.
func (b *builder) modes() {
	b.mkdir("modes")
	modes := []uint32{
		0o0000, 0o0100, 0o0222, 0o0400, 0o0444, 0o0555, 0o0600, 0o0644, 0o0755, 0o0777,
		0o1644, 0o2755, 0o4755, 0o6755, 0o7777, 0o4000, 0o2644,
	}
	for _, mode := range modes {
		name := fmt.Sprintf("modes/%04o", mode)
		b.file(name, 100)
		b.chmod(name, mode)
	}
}

// owners sets ids that no user has. A change of owner takes setuid bits away, so modes come after it.
func (b *builder) owners() {
	b.mkdir("owners")
	for _, id := range [][2]int{{123456, 654321}, {1, 2}, {65534, 65534}, {2147483648, 4294967294}} {
		name := fmt.Sprintf("owners/%d-%d", id[0], id[1])
		b.file(name, 10)
		b.mkdir(name + ".dir")
		b.do("symlink", os.Symlink("nowhere", b.path(name+".link")))
		for _, suffix := range []string{"", ".dir", ".link"} {
			b.do("owner of "+name+suffix, os.Lchown(b.path(name+suffix), id[0], id[1]))
		}
		b.chmod(name, 0o6755)
	}
}

// xattrs makes values of all sizes and bytes, in both name spaces, on every type of entry that takes them.
func (b *builder) xattrs() {
	b.mkdir("xattrs/dir")
	binaryValue := make([]byte, 256)
	for i := range binaryValue {
		binaryValue[i] = byte(i)
	}
	values := map[string]string{
		"empty": "", "text": "value", "binary": string(binaryValue), "2k": string(content("2k", 2048)),
		"16k": string(content("16k", 16<<10)), "64k": string(content("64k", 64<<10)),
	}
	for _, space := range []string{"user", "trusted"} {
		for name, value := range values {
			file := "xattrs/" + space + "-" + name
			b.file(file, 10)
			b.setxattr(file, space+".test."+name, value)
		}
		b.setxattr("xattrs/dir", space+".on-a-directory", "yes")
	}
	b.file("xattrs/many", 10)
	for i := range 30 {
		b.setxattr("xattrs/many", fmt.Sprintf("user.many.%02d", i), strings.Repeat("v", i))
	}
	b.file("xattrs/odd-names", 10)
	b.setxattr("xattrs/odd-names", "user.with space\nand \xff", "x")
	b.setxattr("xattrs/odd-names", "user."+strings.Repeat("n", 250), "x")
	b.file("xattrs/read-only", 10)
	b.setxattr("xattrs/read-only", "user.x", "x")
	b.chmod("xattrs/read-only", 0o400)
	b.do("symlink", os.Symlink("nowhere", b.path("xattrs/symlink")))
	b.setxattr("xattrs/symlink", "trusted.on-a-symlink", "yes")
	b.do("fifo", unix.Mkfifo(b.path("xattrs/fifo"), 0o600))
	b.setxattr("xattrs/fifo", "trusted.on-a-fifo", "yes")
}

// acls makes access and default ACLs and entries that inherit from them.
func (b *builder) acls() {
	b.mkdir("acl/dir/below")
	b.file("acl/file", 10)
	b.file("acl/setgid", 10)
	b.chmod("acl/setgid", 0o2755)
	b.setxattr("acl/file", at.ACLAccess, richACL(6))
	b.setxattr("acl/setgid", at.ACLAccess, richACL(6))
	// The owner of a directory must be able to go into it.
	b.setxattr("acl/dir", at.ACLAccess, richACL(7))
	b.setxattr("acl/dir", at.ACLDefault, at.SimpleACL(4711, 6))
	b.setxattr("acl/dir/below", at.ACLDefault, richACL(7))
	// These inherit from the default ACL, and replicas must not add to that.
	b.file("acl/dir/inherits", 10)
	b.mkdir("acl/dir/inherits-too")
}

// richACL has a line of every kind, with a mask that takes something away.
func richACL(owner uint16) string {
	return at.ACL(
		at.ACLEntry{Tag: at.ACLUserObj, Perm: owner},
		at.ACLEntry{Tag: at.ACLUser, Perm: 7, ID: 123456},
		at.ACLEntry{Tag: at.ACLUser, Perm: 0, ID: 123457},
		at.ACLEntry{Tag: at.ACLGroupObj, Perm: 4},
		at.ACLEntry{Tag: at.ACLGroup, Perm: 5, ID: 654321},
		at.ACLEntry{Tag: at.ACLMask, Perm: 5},
		at.ACLEntry{Tag: at.ACLOther, Perm: 1},
	)
}

// capability gives a file cap_net_bind_service=ep, in the kernel's second revision of the format.
func (b *builder) capability() {
	const revision2, effective, netBindService = 0x02000000, 1, 1 << 10
	var value []byte
	for _, word := range []uint32{revision2 | effective, netBindService, 0, 0, 0} {
		value = binary.LittleEndian.AppendUint32(value, word)
	}
	b.file("capability", 10)
	b.do("owner of capability", os.Lchown(b.path("capability"), 1, 1))
	b.chmod("capability", 0o755)
	b.setxattr("capability", "security.capability", string(value))
}

// sparse makes files of 4 MiB with holes everywhere that a hole can be.
func (b *builder) sparse() {
	b.mkdir("sparse")
	const size = 4 << 20
	data := content("sparse", 64<<10)
	for name, at := range map[string][]int64{
		"hole-at-start": {size - int64(len(data))}, "hole-at-end": {0}, "hole-in-the-middle": {0, size - int64(len(data))},
		"all-hole": {}, "islands": {1 << 20, 2 << 20, 3<<20 + 512},
	} {
		b.do("sparse "+name, sparseFile(b.path("sparse/"+name), size, data, at))
	}
	b.do("sparse odd size", sparseFile(b.path("sparse/odd-size"), size+12345, data[:1], []int64{2<<20 + 1}))
}

// sparseFile writes data at each of the offsets and leaves the rest of size as holes.
func sparseFile(path string, size int64, data []byte, at []int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, offset := range at {
		if _, err := f.WriteAt(data, offset); err != nil {
			return err
		}
	}
	return f.Truncate(size)
}

// hardLinks makes groups within a directory and over several, of files and of other things, and two equal files that
// are no group.
func (b *builder) hardLinks() {
	b.mkdir("links/one/two")
	b.mkdir("links/other")
	b.file("links/pair-a", 5000)
	b.link("links/pair-a", "links/pair-b")
	b.file("links/one/first", 5000)
	b.link("links/one/first", "links/one/two/second")
	b.link("links/one/first", "links/other/third")
	// Equal content must not make them one inode.
	same := bytes.Repeat([]byte("same"), 1000)
	for _, name := range []string{"links/twin-1", "links/twin-2"} {
		b.do(name, os.WriteFile(b.path(name), same, 0o644))
	}
	b.do("symlink", os.Symlink("pair-a", b.path("links/symlink-1")))
	b.link("links/symlink-1", "links/symlink-2")
	b.do("fifo", unix.Mkfifo(b.path("links/fifo-1"), 0o640))
	b.link("links/fifo-1", "links/fifo-2")
	b.file("links/empty-1", 0)
	b.link("links/empty-1", "links/empty-2")
}

// link makes a hard link.
func (b *builder) link(from, to string) {
	b.do("hard link "+to, os.Link(b.path(from), b.path(to)))
}

// symlinks makes targets of every kind; most lead nowhere, which must not matter.
func (b *builder) symlinks() {
	b.mkdir("symlinks/dir")
	b.file("symlinks/target", 10)
	for name, target := range map[string]string{
		"relative": "target", "absolute": "/etc/hostname", "dangling": "no/such/thing", "to-directory": "dir",
		"to-parent": "..", "to-self": "to-self", "to-root": "/", "dot": ".", "slashes": "..//symlinks///target/",
		"newline": "new\nline", "not-utf8": "\xff\xfe", "dash": "-rf",
		"1000-bytes": strings.Repeat("t/", 500), "4000-bytes": strings.Repeat("t/", 2000),
	} {
		b.do("symlink "+name, os.Symlink(target, b.path("symlinks/"+name)))
	}
	b.chtime("symlinks/dangling", time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC))
}

// specials makes FIFOs, a socket and devices, which nobody opens.
func (b *builder) specials() {
	b.mkdir("special")
	for _, s := range []struct {
		name         string
		mode         uint32
		major, minor uint32
	}{
		{"fifo", unix.S_IFIFO | 0o644, 0, 0},
		{"fifo-0000", unix.S_IFIFO, 0, 0},
		{"socket", unix.S_IFSOCK | 0o755, 0, 0},
		{"char", unix.S_IFCHR | 0o666, 1, 3},
		// The largest numbers that XFS keeps, then larger ones.
		{"char-large-minor", unix.S_IFCHR | 0o600, 511, 1<<18 - 1},
		{"char-huge-minor", unix.S_IFCHR | 0o600, 511, 1<<20 - 1},
		{"block", unix.S_IFBLK | 0o660, 7, 0},
		{"block-large", unix.S_IFBLK | 0o660, 511, 65537},
		{"block-huge-major", unix.S_IFBLK | 0o660, 4095, 65537},
		{"char-0-0", unix.S_IFCHR | 0o600, 0, 0},
	} {
		b.special("special/"+s.name, s.mode, unix.Mkdev(s.major, s.minor))
	}
}

// special makes a node. An overlay keeps 0:0 for itself, as the mark of what was deleted.
func (b *builder) special(rel string, mode uint32, dev uint64) {
	err := unix.Mknod(b.path(rel), mode, int(dev))
	if err != nil {
		err = &refusable{err, unix.EPERM}
	}
	if b.do(rel, err) {
		b.chmod(rel, mode&0o7777)
	}
}

// directories makes empty and nested directories and modes that keep others, or everybody, out.
func (b *builder) directories() {
	b.mkdir("dirs/empty")
	b.mkdir("dirs/a/b/c/d")
	b.file("dirs/a/b/c/d/file", 10)
	for _, mode := range []uint32{0o0000, 0o0555, 0o0700, 0o1777, 0o2755, 0o3770} {
		name := fmt.Sprintf("dirs/%04o", mode)
		b.mkdir(name)
		// What lies in a directory that its owner cannot write would be in the way of an ordinary user's clean-up.
		if os.Geteuid() == 0 {
			b.file(name+"/inside", 10)
		}
		b.chmod(name, mode)
	}
}
