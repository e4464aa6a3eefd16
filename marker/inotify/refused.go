package inotify

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// listUnread lists those of n and what lies below it that could not be read, now that it may be different: the attributes of n
// have changed, or its place. What is in them may be as new as they are. empty is what task.empty will be.
func (a *adoption) listUnread(n *node, t *nodes, empty time.Time) {
	for id := range a.unread {
		up := t.byID[id]
		for up != nil && up != n {
			up = up.parent
		}
		if up == n {
			a.tasks = append(a.tasks, task{id, empty, true})
		}
		if up == n || t.byID[id] == nil {
			delete(a.unread, id)
		}
	}
}

// refuses tells whether rights are what keeps this user from d, and not something that may be over soon.
func refuses(d *beneath.Dir, name string, mode uint32) bool {
	return isAny(d.Access(name, mode), unix.EACCES, unix.EPERM)
}

// mayNotRead is refuses for a directory that is to be listed, and may not even be opened. To list it takes both rights.
func (s *Source) mayNotRead(n *node) bool {
	d, err := s.tree.opened(n)
	return err != nil && !errors.Is(err, ErrStale) || err == nil && refuses(d, "", unix.R_OK|unix.X_OK)
}

// notThere tells the errors that mean that no directory of this file system is at a place.
func notThere(err error) bool {
	return isAny(err, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV, unix.ESTALE)
}

// isAny tells whether err is one of the errnos, however it is wrapped.
func isAny(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
