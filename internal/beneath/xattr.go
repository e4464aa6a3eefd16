package beneath

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/pkg/xattr"
	"golang.org/x/sys/unix"

	"georep/marker/xtime"
)

// entry is a path to the entry name that crosses no directory but d; for d itself it is d's link in /proc, which must
// then be followed.
func (d *Dir) entry(name string) string {
	if name == "" {
		return d.proc
	}
	return d.proc + "/" + name
}

// GetxattrInto reads a small xattr of the entry name ("" for d itself) into buf and returns its length. ENODATA means
// that there is none; ERANGE that buf is too short. It allocates less than Getxattr: crawls call it for every entry.
func (d *Dir) GetxattrInto(name, attr string, buf []byte) (int, error) {
	if err := d.ask("getxattr", name); err != nil {
		return 0, pathError("getxattr "+attr, name, err)
	}
	n, err := retryInt(func() (int, error) {
		switch {
		case name == "":
			return unix.Getxattr(d.proc, attr, buf)
		case d.xattrAt:
			return getxattrAt(d.fd, name, attr, buf)
		}
		return unix.Lgetxattr(d.entry(name), attr, buf)
	})
	return n, pathError("getxattr "+attr, name, err)
}

// Getxattr reads an xattr of any length.
func (d *Dir) Getxattr(name, attr string) ([]byte, error) {
	if err := d.ask("getxattr", name); err != nil {
		return nil, pathError("getxattr "+attr, name, err)
	}
	get := xattr.LGet
	if name == "" {
		get = xattr.Get
	}
	v, err := get(d.entry(name), attr)
	return v, xattrError("getxattr "+attr, name, err)
}

// Setxattr sets an xattr of the entry name ("" for d itself).
func (d *Dir) Setxattr(name, attr string, value []byte) error {
	if err := d.ask("setxattr", name); err != nil {
		return pathError("setxattr "+attr, name, err)
	}
	if name != "" && d.xattrAt {
		return pathError("setxattr "+attr, name, retry(func() error { return setxattrAt(d.fd, name, attr, value) }))
	}
	set := xattr.LSet
	if name == "" {
		set = xattr.Set
	}
	return xattrError("setxattr "+attr, name, set(d.entry(name), attr, value))
}

// Removexattr removes an xattr; ENODATA where there is none.
func (d *Dir) Removexattr(name, attr string) error {
	if err := d.ask("removexattr", name); err != nil {
		return pathError("removexattr "+attr, name, err)
	}
	if name != "" && d.xattrAt {
		return pathError("removexattr "+attr, name, retry(func() error { return removexattrAt(d.fd, name, attr) }))
	}
	remove := xattr.LRemove
	if name == "" {
		remove = xattr.Remove
	}
	return xattrError("removexattr "+attr, name, remove(d.entry(name), attr))
}

// Listxattr lists the xattr names of the entry name ("" for d itself). A file system without xattrs gives none. Crawls
// call it for every file they ship, so the usual short list costs one system call.
func (d *Dir) Listxattr(name string) ([]string, error) {
	if err := d.ask("listxattr", name); err != nil {
		return nil, pathError("listxattr", name, err)
	}
	var buf [1024]byte
	n, err := retryInt(func() (int, error) { return d.listxattrInto(name, buf[:]) })
	if err == unix.ERANGE {
		long := xattr.LList
		if name == "" {
			long = xattr.List
		}
		names, err := long(d.entry(name))
		return slices.DeleteFunc(names, secondForm), xattrError("listxattr", name, err)
	}
	if err == unix.EOPNOTSUPP || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, pathError("listxattr", name, err)
	}
	return attrNames(buf[:n]), nil
}

// attrNames parses what the kernel lists. XFS shows root each ACL a second time, in its own form: to copy that elsewhere
// would leave an xattr that means nothing, and to remove it would remove the ACL, so it is left out.
func attrNames(list []byte) []string {
	names := strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00")
	return slices.DeleteFunc(names, secondForm)
}

// secondForm tells XFS's own names of ACLs.
func secondForm(name string) bool {
	return name == "trusted.SGI_ACL_FILE" || name == "trusted.SGI_ACL_DEFAULT"
}

// listxattrInto is one system call, by the way that the kernel has for it.
func (d *Dir) listxattrInto(name string, buf []byte) (int, error) {
	switch {
	case name == "":
		return unix.Listxattr(d.proc, buf)
	case d.xattrAt:
		return listxattrAt(d.fd, name, buf)
	}
	return unix.Llistxattr(d.entry(name), buf)
}

// xattrError drops the /proc path, which tells nobody anything.
func xattrError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var xe *xattr.Error
	if errors.As(err, &xe) {
		err = xe.Err
	}
	return pathError(op, name, err)
}

// Xtime reads the entry's xtime; none gives 0 without an error. A value that is no xtime counts as none.
func (d *Dir) Xtime(name string, names *xtime.Names) (xtime.Time, error) {
	var buf [xtime.Size]byte
	n, err := d.GetxattrInto(name, names.Xtime, buf[:])
	if absent(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t, err := xtime.Parse(buf[:n])
	if err != nil {
		return 0, nil
	}
	return t, nil
}

// RecordedGFID reads the GFID that a slave keeps on the entry; none gives the zero GFID without an error.
func (d *Dir) RecordedGFID(name string, names *xtime.Names) (xtime.GFID, error) {
	var g xtime.GFID
	n, err := d.GetxattrInto(name, names.GFID, g[:])
	if absent(err) || err == nil && n != len(g) {
		return xtime.GFID{}, nil
	}
	return g, err
}

// SetXtime writes the entry's xtime.
func (d *Dir) SetXtime(name string, names *xtime.Names, t xtime.Time) error {
	b := t.Bytes()
	return d.Setxattr(name, names.Xtime, b[:])
}

// DeniesMarks tells whether this user may not set user.* xattrs on the entry, as a file that nobody may write, or a
// directory of somebody else. It is for the namespace xtime.User alone.
func (d *Dir) DeniesMarks(name string) bool {
	err := d.Access(name, unix.W_OK)
	return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// absent tells the errors that mean "this entry carries no such xattr": none set, a value of another length, or a type
// of entry that the namespace does not cover.
func absent(err error) bool {
	return errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.EPERM)
}

// ProbeNamespace finds the namespace that d's file system takes marks in, by setting and reading back an xattr on d.
// It is fs.ErrPermission or EOPNOTSUPP, wrapped, when there is none.
func (d *Dir) ProbeNamespace() (xtime.Namespace, error) {
	var last error
	for _, ns := range []xtime.Namespace{xtime.Trusted, xtime.User} {
		attr := string(ns) + ".georep.probe"
		if last = d.probe(attr); last == nil {
			return ns, nil
		}
	}
	return "", last
}

// probe sets, reads and removes an xattr: some mounts take trusted names and drop them without a word.
func (d *Dir) probe(attr string) error {
	const value = "georep"
	if err := d.Setxattr("", attr, []byte(value)); err != nil {
		return err
	}
	got, err := d.Getxattr("", attr)
	if err != nil || string(got) != value {
		return pathError("probe "+strings.SplitN(attr, ".", 2)[0], "", errors.Join(err, fs.ErrPermission))
	}
	return d.Removexattr("", attr)
}
