package marker

import (
	"context"

	"georep/internal/beneath"
	"georep/marker/coverage"
	"georep/marker/scan"
)

// This file marks what the end of a mount has uncovered: mounts.go says why.

// heed has what is mounted and unmounted from now on written down at once, and what that uncovers marked.
func (s *scanner) heed(ctx context.Context) error {
	table, err := beneath.OpenMountTable()
	if err != nil {
		return err
	}
	defer table.Close()
	for {
		s.lookAtMounts()
		if err := table.Wait(ctx); err != nil {
			return err
		}
	}
}

// lookAtMounts writes down what is mounted in the volume, and wakes the scanner for what no longer is. It may be called from any
// goroutine.
func (s *scanner) lookAtMounts() {
	list, err := s.mounts.bare()
	if len(list) > 0 {
		s.wakeUp()
	}
	if err != nil {
		s.unknownMounts(err)
	}
}

// unknownMounts says that the mounts could not be looked at.
func (s *scanner) unknownMounts(err error) {
	s.Often.Warn().Err(err).Msg("the mounts in the volume cannot be read; they are looked at again")
}

// awaitUncovered returns when all is marked that mounts have uncovered, or when events were lost.
func (s *scanner) awaitUncovered(ctx context.Context) error {
	for wait := s.retryFirst; ; wait = min(2*wait, scanRetryLongest) {
		met, err := s.meetUncovered(ctx)
		if _, missing := s.beats.losses(); err != nil || met || missing {
			return err
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

// meetUncovered marks all that mounts have uncovered, and tells whether it could.
func (s *scanner) meetUncovered(ctx context.Context) (bool, error) {
	list, err := s.mounts.bare()
	if err != nil {
		s.unknownMounts(err)
		return false, nil
	}
	if len(list) == 0 {
		return true, nil
	}
	one := s.begin(true)
	one.Anew = true
	if s.follows() {
		one.Expect = s.tree.expect // inotify may have no watch on what was covered
	}
	var covers []scan.Cover
	for _, c := range list {
		covers = append(covers, scan.Cover{Path: string(c.Path), Key: beneath.HandleKey(c.Key), Ino: c.Ino})
	}
	sought, err := one.Uncover(ctx, covers)
	if err == nil && s.follows() {
		err = one.MeetMovers(ctx)
	}
	if err := s.finish(one, coverage.Parts, 0, err); err != nil || one.Incomplete.Load() {
		return false, err
	}
	if len(sought) > 0 {
		if met, err := s.seek(ctx, sought); err != nil || !met {
			return false, err
		}
	}
	if err := s.mounts.marked(list); err != nil {
		s.Often.Warn().Err(err).Msg("entries that a mount had covered are marked once more")
		return false, nil
	}
	return true, nil
}

// seek goes through the whole volume for entries with these numbers, to mark them and all that is below them.
func (s *scanner) seek(ctx context.Context, numbers map[uint64]struct{}) (met bool, err error) {
	one := s.begin(false)
	one.Anew, one.Numbers = true, numbers
	err = one.Run(ctx)
	if err == nil && s.follows() {
		err = one.MeetMovers(ctx)
	}
	err = s.finish(one, coverage.Nothing, 0, err)
	return err == nil && !one.Incomplete.Load(), err
}
