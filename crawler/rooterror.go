package crawler

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

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

func goesOn(err error) error { return fmt.Errorf("%w; replication then goes on by itself", err) }

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
