package sftp

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/apply"
	"georep/slave/sftp/wire"
)

// ownership is whose the slave is, and who uses it: the owner's file, which says to which master
// and session the slave belongs, and the lease. What it says is read before anything is changed.
type ownership struct {
	*space
	lease leaseTimes
	owner slave.Owner // on record; filterOp's
}

// ownerFile says whose the slave is; a root without it is nobody's.
const ownerFile = base + apply.Owner

// openRoot finds the root, and makes it where it is missing and was never filled. ErrAbsent says
// that a slave that the master has filled is not there, ErrNoVolume that there is no directory and
// none can be made. Its parent must be there: who mistypes a path does not get a tree.
func (own *ownership) openRoot() error {
	c := own.first()
	given := own.o.Path
	for len(given) > 0 && given[len(given)-1] == '/' {
		given = given[:len(given)-1]
	}
	own.root = given
	var a wire.Attrs
	var path string
	var err, perr error
	_ = together(func() error { a, err = c.Lstat(own.abs("")); return nil },
		func() error { path, perr = c.Realpath(own.o.Path); return nil }) // never fails
	if perr == nil && path != own.abs("") {
		own.root = strings.TrimRight(path, "/")
		a, err = c.Lstat(own.abs(""))
	}
	if lost := c.Err(); lost != nil { // which says nothing of the directory
		return fmt.Errorf("open slave %s: %w", own.name(), lost)
	}
	filled := own.o.Proof.Filled && !own.o.Force
	if filled && (err != nil || kindOf(a) != slave.Dir) {
		if err == nil {
			err = unix.ENOTDIR
		}
		return fmt.Errorf("slave %s: %w", own.name(), slave.Gone(err))
	}
	if errors.Is(err, unix.ENOENT) {
		if merr := c.Mkdir(own.abs(""), wire.Attrs{Flags: wire.HasMode, Mode: 0o755}); merr != nil {
			if lost := c.Err(); lost != nil {
				return fmt.Errorf("make slave %s: %w", own.name(), lost)
			}
			return fmt.Errorf("make slave %s: %w: %w; only the last directory of a path is made: check the path, or make the one above", own.name(), slave.ErrNoVolume, merr)
		}
		a, err = c.Lstat(own.abs(""))
	}
	switch {
	case c.Err() != nil:
		return fmt.Errorf("open slave %s: %w", own.name(), c.Err())
	case err != nil:
		return fmt.Errorf("open slave %s: %w: %w", own.name(), slave.ErrNoVolume, err)
	case kindOf(a) != slave.Dir:
		return fmt.Errorf("open slave %s: %w: it is a %s, not a directory", own.name(), slave.ErrNoVolume, kindOf(a))
	}
	return nil
}

// checkOwner refuses a root that is another master's, or another slave, or nobody's and in use, before anything is changed
// in it. It gives the owner on record, nil where there is none, and whether the slave is to be taken as if nobody had ever
// filled it.
func (own *ownership) checkOwner() (have *slave.Owner, anew bool, err error) {
	var empty error
	_ = together(func() error { have, err = own.readOwner(); return nil }, func() error { // never fails
		if !own.o.Force {
			empty = own.checkEmpty()
		}
		return nil
	})
	if err != nil && !own.o.Force {
		return nil, false, fmt.Errorf("slave %s: read its owner: %w: %w", own.name(), slave.ErrUnfit, err)
	}
	// The protocol tells nothing of a directory that a copy of it does not have.
	anew, err = own.claim().Admit(have, func(string) bool { return true })
	switch {
	case err != nil:
		return nil, false, fmt.Errorf("slave %s: %w", own.name(), err)
	case have == nil:
		return nil, anew, empty
	}
	return have, anew, nil
}

// claim is by what right the slave is opened (slave.Claim).
func (own *ownership) claim() *slave.Claim {
	return &slave.Claim{Master: own.o.Master, Session: own.o.Session, Proof: own.o.Proof, Force: own.o.Force, Inspect: own.o.inspect}
}

// readOwner reads the owner's file; nil where there is no owner on record yet. What somebody else
// has put there is an error.
func (own *ownership) readOwner() (*slave.Owner, error) {
	text, err := own.readSmall(ownerFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slave.ParseOwner(text)
}

// checkEmpty refuses, with ErrNotEmpty, a root with anything in it but what a new file system has.
func (own *ownership) checkEmpty() error {
	err := own.list("", func(n wire.Name) error {
		if n.Name == slave.Reserved || n.Name == "lost+found" {
			return nil
		}
		return fmt.Errorf("slave %s: %w (%q is there) and has no owner: use an empty directory, or --force to take it",
			own.name(), slave.ErrNotEmpty, n.Name)
	})
	if err != nil && !errors.Is(err, slave.ErrNotEmpty) {
		return fmt.Errorf("slave %s: %w: %w", own.name(), slave.ErrUnfit, err)
	}
	return err
}

// writeOwner puts the owner on record, whole or not at all, and before it in the index whose that
// is: an index without its slave's name is not believed.
func (own *ownership) writeOwner(next *slave.Owner) error {
	text, err := next.Text()
	if err == nil {
		err = own.put(indexOf, []byte(next.Slave.String()+"\n"))
	}
	if err != nil {
		return err
	}
	return own.put(ownerFile, text)
}

// filterOp puts the session's filter on record. A session sends one such operation at a time, which
// no other runs beside.
func (own *ownership) filterOp(op *slave.Op) error {
	next := own.owner
	next.SetFilter(op.Record)
	err := own.writeOwner(&next)
	if err == nil {
		own.owner = next
	}
	return err
}

// room learns the free space where the server tells it, and refuses a read-only slave with EROFS. A
// server that does not tell is no error.
func (own *ownership) room() error {
	c := own.first()
	if !c.CanSpace() {
		return nil
	}
	s, err := c.Statvfs(own.abs(""))
	if err != nil {
		return nil // then it is not known
	}
	own.info.FreeBytes, own.info.FreeFiles = s.Free, max(s.Inodes, 0)
	if s.ReadOnly {
		return unix.EROFS
	}
	return nil
}
