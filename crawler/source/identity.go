package source

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// Check implements Source. It proves that the path still leads to the tree that the volume was made of.
func (m *Local) Check() error {
	o := m.config
	if o.Identity.GFID.IsZero() {
		return nil
	}
	now, err := beneath.OpenRoot(o.Path, true)
	if err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	defer now.Close()
	if err := now.Enterable(); err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	id, err := now.Identity()
	if err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	if id.GFID != o.Identity.GFID {
		return fmt.Errorf("%w: %s is another directory than the volume was made of (is its file system mounted?); "+
			"replication goes on by itself once it is back", ErrNotMaster, o.Path)
	}
	if err := carriesXtime(now, o); err != nil {
		return err
	}
	return sameInode(now, o)
}

// carriesXtime: the root of a volume has always been marked. Roots of two file systems may share inode and generation,
// but not this.
func carriesXtime(now *beneath.Dir, o *Config) error {
	t, err := now.Xtime("", &o.Names)
	if err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	if t == 0 {
		return fmt.Errorf("%w: %s does not carry this volume's xtime (is its file system mounted?); "+
			"replication goes on by itself once it is back", ErrNotMaster, o.Path)
	}
	return nil
}

// sameInode: the root that is held open must be the one that the path leads to.
func sameInode(now *beneath.Dir, o *Config) error {
	a, err := now.Stat("")
	if err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	b, err := o.Root.Stat("")
	if err != nil {
		return GoesOn(RootError(o.Path, err))
	}
	if a.Ino != b.Ino || a.Dev != b.Dev {
		return fmt.Errorf("%w: %s was mounted anew", ErrNotMaster, o.Path)
	}
	return nil
}

// RootError is an error of the master's root: what failed and what to do about it. It is ErrNotMaster: nothing is purged on
// what such a root shows, and it is waited out.
func RootError(path string, err error) error {
	there := "the master cannot be used"
	if isAny(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP) {
		there = ErrNotMaster.Error()
	}
	return &rootError{there + ": " + path, beneath.RootError(path, bare(err))}
}

type rootError struct {
	text string
	err  error
}

func (e *rootError) Error() string        { return e.text + ": " + e.err.Error() }
func (e *rootError) Unwrap() error        { return e.err }
func (e *rootError) Is(target error) bool { return target == ErrNotMaster }

// GoesOn adds that nothing is to be done but to mend the root.
func GoesOn(err error) error { return fmt.Errorf("%w; replication then goes on by itself", err) }

// bare is the errno alone, where there is one.
func bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func isAny(err error, errnos ...unix.Errno) bool {
	return slices.ContainsFunc(errnos, func(e unix.Errno) bool { return errors.Is(err, e) })
}
