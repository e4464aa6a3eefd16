package marker

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// This file marks what the end of a mount has uncovered: mounts.go says why.

// heed has what is mounted and unmounted from now on written down at once, and what that uncovers marked.
func (m *marker) heed(ctx context.Context) error {
	table, err := beneath.OpenMountTable()
	if err != nil {
		return err
	}
	defer table.Close()
	for {
		if err := m.lookAtMounts(); err != nil {
			m.often.Warn().Err(err).Msg("what is mounted in the volume is not known; it is looked at again")
		}
		if err := table.Wait(ctx); err != nil {
			return err
		}
	}
}

// lookAtMounts writes down what is mounted in the volume, and wakes the scanner for what no longer is.
func (m *marker) lookAtMounts() error {
	list, err := m.mounts.bare()
	if len(list) > 0 {
		m.wakeScanner()
	}
	return err
}

// awaitUncovered returns when all is marked that mounts have uncovered, or when events were lost.
func (m *marker) awaitUncovered(ctx context.Context) error {
	for wait := m.scanRetry; ; wait = min(2*wait, scanRetryLongest) {
		met, err := m.meetUncovered(ctx)
		if _, missing := m.beats.losses(); err != nil || met || missing {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// meetUncovered marks all that mounts have uncovered, and tells whether it could.
func (m *marker) meetUncovered(ctx context.Context) (bool, error) {
	list, err := m.mounts.bare()
	if err != nil {
		m.often.Warn().Err(err).Msg("what is mounted in the volume is not known; it is looked at again")
		return false, nil
	}
	if len(list) == 0 {
		return true, nil
	}
	s := m.beginScan(true)
	s.anew = true
	if m.follows() {
		s.expect = m.tree.expect // inotify may have no watch on what was covered
	}
	sought, err := s.uncover(ctx, list)
	if err == nil && m.follows() {
		err = m.meetMovers(ctx, s)
	}
	if err := m.endScan(s, parts, 0, err); err != nil || s.incomplete.Load() {
		return false, err
	}
	if len(sought) > 0 {
		if met, err := m.seek(ctx, sought); err != nil || !met {
			return false, err
		}
	}
	if err := m.mounts.marked(list); err != nil {
		m.often.Warn().Err(err).Msg("what was mounted in the volume is marked once more")
		return false, nil
	}
	return true, nil
}

// uncover marks entries and all that is below them. sought are the numbers of those that lie elsewhere by now, nobody knows
// where.
func (s *scan) uncover(ctx context.Context, list map[string]cover) (sought map[uint64]struct{}, err error) {
	sought = map[uint64]struct{}{}
	g, ctx := s.goroutines(ctx)
	for _, c := range list {
		switch d, name, err := s.locateCover(&c); {
		case err == nil:
			g.Go(func() error { return s.uncovered(ctx, d, name) })
		case errors.Is(err, errElsewhere):
			sought[c.Ino] = struct{}{}
		case judge(err, unseen) == again:
			s.often.Warn().Err(err).Str("path", string(c.Path)).Msg("what was mounted on could not be marked yet")
			s.incomplete.Store(true)
		default: // It was removed, or is covered again, itself or with what it lies in, and will be marked after that.
		}
	}
	return sought, g.Wait()
}

// errElsewhere says that an entry is not where it was covered.
var errElsewhere = errors.New("it lies elsewhere by now")

// locateCover opens a directory that was covered, and for anything else the directory in which it lies, with its name.
func (s *scan) locateCover(c *cover) (d *beneath.Dir, name string, err error) {
	path := string(c.Path)
	if len(c.Key) > 0 {
		d, path, err = s.openCover(beneath.HandleKey(c.Key), path)
		if d != nil || err != nil {
			return d, "", err
		}
	}
	dir, name := beneath.Split(path)
	if d, err = s.root.OpenPath(dir); err != nil {
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
func (c *cover) elsewhere(err error) error {
	if c.Ino != 0 && judge(err, unseen) == gone {
		return errElsewhere
	}
	return err
}

// openCover opens a directory by its handle. For anything else it gives the path instead, and so where this user may not.
func (s *scan) openCover(k beneath.HandleKey, path string) (*beneath.Dir, string, error) {
	inode, err := s.root.PinKey(k)
	if err != nil {
		if judge(err, unseen) == gone {
			return nil, "", err
		}
		return nil, path, nil
	}
	defer inode.Close()
	if st, err := inode.Stat(""); err != nil || !st.IsDir() {
		if now := s.root.LastPathOf(inode); now != "" {
			path = now
		}
		return nil, path, err
	}
	at, err := s.root.OpenKey(k)
	if err != nil {
		return nil, "", err
	}
	defer at.Close()
	d, err := at.OpenDir("")
	if err != nil {
		return nil, "", err
	}
	inside, err := s.inside(d)
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
func (s *scan) uncovered(ctx context.Context, d *beneath.Dir, name string) error {
	if name == "" {
		return s.visit(ctx, d, true)
	}
	defer d.Close()
	st, err := d.Stat(name)
	if err != nil {
		s.trouble(d, name, err)
		return nil
	}
	incomplete, err := s.markChain(d, []found{{name: name, stat: st}})
	if incomplete {
		s.incomplete.Store(true)
	}
	return err
}

// seek goes through the whole volume for entries with these numbers, to mark them and all that is below them.
func (m *marker) seek(ctx context.Context, numbers map[uint64]struct{}) (met bool, err error) {
	s := m.beginScan(false)
	s.anew, s.sought = true, numbers
	err = s.run(ctx)
	if err == nil && m.follows() {
		err = m.meetMovers(ctx, s)
	}
	err = m.endScan(s, nothing, 0, err)
	return err == nil && !s.incomplete.Load(), err
}
