package strip

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

const (
	// deepest is how many directories within each other are open at the same time. What lies deeper is moved up, into .georep itself.
	deepest = 32
	// namesAtOnce is how many names of a directory are removed before it is listed again. There may be millions.
	namesAtOnce = 1024
)

// remover removes what is in .georep. Memory and open descriptors do not grow with the depth of the
// tree, nor with the number of entries.
type remover struct {
	base  *beneath.Dir
	moved []string // up, and not removed yet
	count int      // of all that were moved
}

// remove removes an entry of .georep with all that is in it. What is a mount stays, and is an
// error. It may be called again after an error, and goes on where it was.
func (r *remover) remove(name string) error {
	err := r.entry(r.base, name, 1)
	for err == nil && len(r.moved) > 0 {
		last := len(r.moved) - 1
		name, r.moved = r.moved[last], r.moved[:last]
		err = r.entry(r.base, name, 1)
	}
	return err
}

// entry removes one entry of d. First it is taken for a file, since most are. What vanished
// meanwhile is no error.
func (r *remover) entry(d *beneath.Dir, name string, depth int) error {
	err := d.Unlink(name)
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EBUSY):
		return mounted(name)
	case !errors.Is(err, unix.EISDIR):
		return err
	}
	if depth < deepest {
		if err := r.empty(d, name, depth); err != nil {
			return err
		}
	}
	err = d.Rmdir(name)
	switch {
	case errors.Is(err, unix.EBUSY):
		return mounted(name)
	case depth == deepest && isFull(err):
		return r.moveUp(d, name)
	}
	return err
}

// isFull is what rmdir says of a directory with entries; file systems differ in which errno that
// is.
func isFull(err error) bool { return errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) }

// empty removes what is in a directory. It lists again after each bunch of names, until nothing is
// left.
func (r *remover) empty(d *beneath.Dir, name string, depth int) error {
	below, err := d.OpenDir(name)
	if errors.Is(err, unix.EXDEV) {
		return mounted(name)
	}
	if err != nil {
		return err
	}
	defer below.Close()
	for {
		names, err := someNames(below)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, n := range names {
			if err := r.entry(below, n, depth+1); err != nil {
				return err
			}
		}
	}
}

// someNames lists the first names. Removing them before the next call keeps the position in the
// directory simple: there is none.
func someNames(d *beneath.Dir) (names []string, err error) {
	full := errors.New("enough")
	err = d.List(func(e beneath.Entry) error {
		if len(names) == namesAtOnce {
			return full
		}
		names = append(names, e.Name)
		return nil
	})
	if errors.Is(err, full) {
		err = nil
	}
	return names, err
}

// moveUp gives a directory a name in .georep. Names that an earlier call left there are passed
// over.
func (r *remover) moveUp(d *beneath.Dir, name string) error {
	for {
		r.count++
		up := fmt.Sprintf("deep-%d", r.count)
		err := d.Rename(name, r.base, up, 0)
		switch {
		case err == nil:
			r.moved = append(r.moved, up)
			return nil
		case errors.Is(err, unix.EBUSY):
			return mounted(name)
		case !isFull(err) && !errors.Is(err, unix.ENOTDIR): // else there is one of a call that was cut short
			return err
		}
	}
}
