package marker

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"georep/internal/beneath"
	"georep/marker/tree"
	"georep/marker/xtime"
)

// troubles are the marks that fail, and the entries that cannot be read. It may be used from any goroutine.
type troubles struct {
	vol      *tree.Volume
	last     atomic.Pointer[trouble] // that keeps the heartbeat from going on
	refusals refusals
}

// trouble is what failed, in words for the operator.
type trouble struct{ text string }

// failed says that a mark failed, and will be tried again.
func (t *troubles) failed(d *beneath.Dir, name string, err error) {
	t.say(d.PathFrom(t.vol.Root, name), err, "a mark failed and will be tried again")
}

// unopened says that a directory could not be opened to be marked, or to find out where it lies. Its path is not known, unless
// the error has it; that of one above it may be. It is called with the core's mu held.
func (t *troubles) unopened(in directories, k beneath.HandleKey, err error) {
	path := "a directory of the volume"
	for up, known := in.parent(k); known; up, known = in.parent(up) {
		d, err := in.dir(up)
		if err == nil {
			path = "a directory in " + d.PathFrom(t.vol.Root, "")
			break
		}
	}
	t.say(path, err, "a directory could not be opened to mark it, and will be tried again")
}

// say logs trouble with one entry that will be tried again, and keeps it for the status.
func (t *troubles) say(path string, err error, what string) {
	err = tree.Bare(err)
	t.last.Store(&trouble{fmt.Sprintf("%q: %v", path, err)})
	t.vol.Often.Warn().Str("path", path).Err(err).Msg(what)
}

// such names the last trouble, behind a statement of how many there are.
func (t *troubles) such() string {
	if one := t.last.Load(); one != nil {
		return ", such as " + one.text
	}
	return ""
}

// refuse notes an entry that takes no mark.
func (t *troubles) refuse(d *beneath.Dir, name string, why error) {
	x, _ := d.Xtime(name, &t.vol.Names) // where it cannot be read it has none that counts
	t.refusals.add(refusal{path: d.PathFrom(t.vol.Root, name), why: tree.Bare(why), xtime: x})
}

// unread notes an entry that this user may not read.
func (t *troubles) unread(path string, err error) {
	t.refusals.add(refusal{path: path, why: tree.Bare(err), unread: true})
}

// prune forgets the refusals of what is marked by now, or is gone.
func (t *troubles) prune() {
	t.refusals.prune(func(one refusal) bool {
		dir, name := beneath.Split(one.path)
		if one.path == "." {
			name = ""
		}
		d, err := t.vol.Root.OpenPath(dir)
		if err == nil {
			defer d.Close()
			_, err = d.Stat(name)
		}
		if err != nil {
			return tree.Judge(err, tree.Unseen) == tree.Gone
		}
		if one.unread {
			return !tree.Unreadable(d, name)
		}
		x, err := d.Xtime(name, &t.vol.Names)
		return err == nil && x != one.xtime
	})
}

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
