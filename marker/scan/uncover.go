package scan

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/tree"
)

// This file marks what the end of a mount has uncovered.

// Cover is an entry that something was mounted on. What identifies it is that of the entry beneath.
// It was written down when the mount was found, so that it can be found again after the mount has
// ended.
type Cover struct {
	Path string
	Key  beneath.HandleKey // its handle; "" where only root may ask for it
	Ino  uint64            // its number; 0: not known
}

// Uncover marks entries and all that is below them. sought are the numbers of those that lie
// elsewhere by now, nobody knows where. What is covered again, or was removed, needs nothing. What
// could not be marked makes the scan incomplete.
func (s *Scan) Uncover(ctx context.Context, list []Cover) (sought map[uint64]struct{}, err error) {
	sought = map[uint64]struct{}{}
	g, ctx := s.goroutines(ctx)
	for _, c := range list {
		switch d, name, err := s.locateCover(&c); {
		case err == nil:
			g.Go(func() error { return s.uncovered(ctx, d, name) })
		case errors.Is(err, errElsewhere):
			sought[c.Ino] = struct{}{}
		case tree.Judge(err, tree.Unseen) == tree.Again:
			s.Often.Warn().Err(err).Str("path", c.Path).Msg("an entry that a mount had covered could not be marked yet")
			s.Incomplete.Store(true)
		default: // It was removed, or is covered again, itself or with what it lies in, and will be marked after that.
		}
	}
	return sought, g.Wait()
}

// errElsewhere says that an entry is not where it was covered.
var errElsewhere = errors.New("it lies elsewhere by now")

// locateCover opens a directory that was covered, and for anything else the directory in which it
// lies, with its name. The directory is the caller's to close. EXDEV says that something is mounted
// there again.
func (s *Scan) locateCover(c *Cover) (d *beneath.Dir, name string, err error) {
	path := c.Path
	if len(c.Key) > 0 {
		d, path, err = s.openCover(c.Key, path)
		if d != nil || err != nil {
			return d, "", err
		}
	}
	dir, name := beneath.Split(path)
	if d, err = s.Root.OpenPath(dir); err != nil {
		return nil, "", c.elsewhere(err)
	}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.Covered(name) {
		return d, "", unix.EXDEV
	}
	st, err := d.Stat(name)
	switch {
	case err != nil:
		return d, "", c.elsewhere(err)
	case c.Ino != 0 && st.Ino != c.Ino:
		return d, "", errElsewhere
	case st.IsDir():
		defer d.Close()
		child, err := d.OpenDir(name)
		return child, "", err
	}
	return d, name, nil
}

// elsewhere: where the path leads nowhere any more, the entry may have moved.
func (c *Cover) elsewhere(err error) error {
	if c.Ino != 0 && tree.Judge(err, tree.Unseen) == tree.Gone {
		return errElsewhere
	}
	return err
}

// openCover opens a directory by its handle. For anything else it gives the path instead, and so where this user may not.
func (s *Scan) openCover(k beneath.HandleKey, path string) (*beneath.Dir, string, error) {
	inode, err := s.Root.PinKey(k)
	if err != nil {
		if tree.Judge(err, tree.Unseen) == tree.Gone {
			return nil, "", err
		}
		return nil, path, nil
	}
	defer inode.Close()
	if st, err := inode.Stat(""); err != nil || !st.IsDir() {
		if now := s.Root.LastPathOf(inode); now != "" {
			path = now
		}
		return nil, path, err
	}
	at, err := s.Root.OpenKey(k)
	if err != nil {
		return nil, "", err
	}
	defer at.Close()
	d, err := at.OpenDir("")
	if err != nil {
		return nil, "", err
	}
	inside, err := s.Inside(d)
	if err == nil && !inside {
		err = unix.ENOENT
	}
	if err != nil {
		d.Close()
		return nil, "", err
	}
	return d, "", nil
}

// uncovered marks one entry of d, or d and all below it, and closes d.
func (s *Scan) uncovered(ctx context.Context, d *beneath.Dir, name string) error {
	if name == "" {
		return s.visit(ctx, d, true)
	}
	defer d.Close()
	st, err := d.Stat(name)
	if err != nil {
		s.trouble(d, name, err)
		return nil
	}
	incomplete, err := s.Marker.MarkChain(d, []Found{{Name: name, Stat: st}})
	if incomplete {
		s.Incomplete.Store(true)
	}
	return err
}
