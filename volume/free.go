package volume

import "path/filepath"

// Free is nil where nobody uses a directory, and else ErrVolumeBusy, wrapped: a session, a marker
// or a one-shot sync has it as its master, or a session of this host as its slave. A tree within
// it, or around it, counts as well. It is for who is about to remove something there.
func (s *Store) Free(path string) error { return s.locked(func() error { return s.free(path) }) }

// The registry's lock is held, so no session or volume comes meanwhile.
func (s *Store) free(path string) error {
	volumes, err := s.Volumes()
	if err != nil {
		return err
	}
	for _, v := range volumes {
		if !overlap(path, v.Path) {
			continue
		}
		if err := s.unused(v.Name); err != nil {
			return err
		}
	}
	sessions, err := s.Sessions()
	if err != nil {
		return err
	}
	for _, sess := range sessions {
		if !sess.Slave.Local() {
			continue
		}
		at, err := resolvePart(sess.Slave.Path)
		if err != nil {
			at = filepath.Clean(sess.Slave.Path)
		}
		if overlap(path, at) {
			return kindf(ErrVolumeBusy, "volume %s is replicated to %q, in which, or around which, %q lies: delete that session first with "+
				"georep delete %s %s", sess.Master, sess.Slave, path, sess.Master, sess.Slave)
		}
	}
	return nil
}

// overlap tells whether two directories share a tree.
func overlap(a, b string) bool { return within(a, b) || within(b, a) || sameDir(a, b) }
