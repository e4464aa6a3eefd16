package marker

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// sampleSize is how many refusals are named.
const sampleSize = 16

// refusals counts marks that were refused for good, and names the latest few. The crawler has to judge these entries by
// their ctime; the directories above them are marked as ever. It may be used from any goroutine.
type refusals struct {
	mu     sync.Mutex
	count  int64
	sample []refusal
}

// refusal is one entry that could not be marked, or not be read.
type refusal struct {
	path   string // from the root
	why    error
	xtime  xtime.Time // that it carried then
	unread bool
}

func (r *refusals) add(one refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	r.sample = slices.DeleteFunc(r.sample, func(have refusal) bool { return have.path == one.path })
	if len(r.sample) == sampleSize {
		r.sample = slices.Delete(r.sample, 0, 1)
	}
	r.sample = append(r.sample, one)
}

func (r *refusals) fill(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Unmarked = r.count
	for _, one := range r.sample {
		s.UnmarkedSample = append(s.UnmarkedSample, fmt.Sprintf("%q: %v", one.path, one.why))
	}
}

// prune drops those of which over says that they are past.
func (r *refusals) prune(over func(refusal) bool) {
	r.mu.Lock()
	sample := slices.Clone(r.sample)
	r.mu.Unlock()
	for _, one := range sample {
		if !over(one) {
			continue
		}
		r.mu.Lock()
		r.sample = slices.DeleteFunc(r.sample, func(have refusal) bool { return have == one })
		r.mu.Unlock()
	}
}

// refuse notes an entry that takes no mark.
func (c *core) refuse(d *beneath.Dir, name string, why error) {
	x, _ := d.Xtime(name, &c.names) // where it cannot be read it has none that counts
	c.refusals.add(refusal{path: d.PathFrom(c.root, name), why: bare(why), xtime: x})
}

// pruneRefusals forgets what is marked by now, or is gone.
func (c *core) pruneRefusals() {
	c.refusals.prune(func(one refusal) bool {
		dir, name := beneath.Split(one.path)
		if one.path == "." {
			name = ""
		}
		d, err := c.root.OpenPath(dir)
		if err == nil {
			defer d.Close()
			_, err = d.Stat(name)
		}
		if err != nil {
			return judge(err, unseen) == gone
		}
		if one.unread {
			return !unreadable(d, name)
		}
		x, err := d.Xtime(name, &c.names)
		return err == nil && x != one.xtime
	})
}

// bare is the errno alone: whoever reads it knows of what.
func bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
