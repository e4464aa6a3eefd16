package crawler

import (
	"maps"
	"slices"
	"sync"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// This file lets directories go on while files in them wait to be shipped (debounce.go).
//
// Such a directory, and each one above it, may not be stamped beyond what it holds (invariant 5). But a stamp that stands
// still while its directory's xtime goes on would, by the rules of hints, have it listed at every change. So the crawler
// remembers what it defers: up to coveredXtime the slave has everything of the directory, but under some names; its
// stamp says less. What the hints say from coveredXtime on is then as good as if it said so.
//
// A deferral belongs to one copy of a directory. The slave may have several: one that was parked when the directory moved, and
// one that was made anew. So a deferral is believed only of that copy (slave.Copy), only while it carries the stamp that was left
// there, and no longer than the connection: a slave that lost power is asked again by another worker. A new copy ends it
// (child in carryout.go), since it may get the number of one that was deleted. A copy without a stamp is never believed:
// what is taken out of a parked directory takes its stamp off, and of one that has none nobody would see that.
//
// The stamp that is left is the oldest safeXtime of what is deferred: up to that the slave has everything under a name.

// deferral is what the slave lacks in a directory.
type deferral struct {
	copy         slave.Copy // of the directory on the slave
	stamp        xtime.Time // what that carries
	coveredXtime xtime.Time // up to there it has everything, but what is deferred
	names        map[string]deferredName
	left         leftNames
	met          uint32 // by which crawl last; under deferrals.mu
}

// deferredName is what it lacks under one name.
type deferredName struct {
	dir       xtime.GFID // a directory that defers something itself; zero for a file that waits
	safeXtime xtime.Time // up to there it has everything
	wait      wait       // of a file
	job       *chore     // of one that is worked on beside the crawls; it is due once that has ended
	path      string     // of a file, as it was when it was put off
	size      int64
}

// deferrals are all of a crawler, by directory. They are safe for concurrent use.
type deferrals struct {
	running func(*chore) bool // tells of a job whether it has not ended yet
	mu      sync.Mutex
	of      map[xtime.GFID]*deferral
	awaited xtime.Time // the root's, when a crawl began of which no hint had told
	before  int        // so many names were left at the end of the last crawl
	crawl   uint32     // which of the crawls goes on
}

// begin counts a crawl.
func (b *deferrals) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.crawl++
}

// set replaces what is deferred in a directory; nil: nothing.
func (b *deferrals) set(g xtime.GFID, d *deferral) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d == nil {
		delete(b.of, g)
		return
	}
	if b.of == nil {
		b.of = map[xtime.GFID]*deferral{}
	}
	d.met = b.crawl
	b.of[g] = d
}

// known gives the deferral of a copy that carries the given stamp, nil where none is known. It is read only.
func (b *deferrals) known(g xtime.GFID, c slave.Copy, stamp xtime.Time) *deferral {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d := b.of[g]; d != nil && c != 0 && d.copy == c && stamp != 0 && d.stamp == stamp {
		d.met = b.crawl
		return d
	}
	return nil
}

// prune forgets the deferrals of directories that none leads to from what the root defers: they are gone, and what waited in them,
// or on their way to another place. It tells whether there were any.
func (b *deferrals) prune(root *deferral) (some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var todo []xtime.GFID
	if root != nil {
		todo = root.dirs(todo)
	}
	kept := b.from(todo)
	some = len(b.of) > len(kept)
	b.of = kept
	return some
}

// forgetUnmet forgets deferrals of which something is due, and which neither of the last two crawls has met, nor does what they met lead
// there. Their directories are gone, or cannot be reached for now. A crawl that stamps the root forgets them anyway; but where
// something else fails for long, they would have one crawl follow another. Whoever gets to such a directory lists it.
func (b *deferrals) forgetUnmet(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var met []xtime.GFID
	for g, d := range b.of {
		if d.met+1 >= b.crawl {
			met = append(met, g)
		}
	}
	kept := b.from(met)
	for g, d := range b.of {
		if kept[g] == nil && b.isDue(d, now) {
			delete(b.of, g)
		}
	}
}

// isDue tells whether anything in a directory itself is due. b.mu is held.
func (b *deferrals) isDue(d *deferral, now time.Time) bool {
	for _, o := range d.names {
		if o.dir.IsZero() && !now.Before(b.dueOf(&o)) {
			return true
		}
	}
	return !d.left.none()
}

// from are the deferrals of directories, and all that these lead to. b.mu is held.
func (b *deferrals) from(todo []xtime.GFID) map[xtime.GFID]*deferral {
	kept := map[xtime.GFID]*deferral{}
	for len(todo) > 0 {
		g := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		d := b.of[g]
		if d == nil || kept[g] != nil {
			continue
		}
		kept[g] = d
		todo = d.dirs(todo)
	}
	return kept
}

// dirs adds the directories that defer something themselves.
func (d *deferral) dirs(to []xtime.GFID) []xtime.GFID {
	for _, o := range d.names {
		if !o.dir.IsZero() {
			to = append(to, o.dir)
		}
	}
	return to
}

// none tells that nothing is deferred.
func (b *deferrals) none() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.of) == 0
}

// waiting lists up to most files that wait, those that wait longest first, and counts all.
func (b *deferrals) waiting(most int) (list []Waiting, total int, bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.of {
		for _, o := range d.names {
			if o.dir.IsZero() {
				list = append(list, Waiting{o.path, o.wait.since, o.job != nil})
				bytes += o.size
			}
		}
		if !d.left.none() {
			list, total = append(list, d.left.first()), total+len(d.left.names)-1
		}
	}
	slices.SortFunc(list, func(a, b Waiting) int { return a.Since.Compare(b.Since) })
	return list[:min(most, len(list))], total + len(list), bytes
}

// next is the earliest time at which a file is due; zero where none waits. Names that are left are due at once.
func (b *deferrals) next() (first time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.of {
		for _, o := range d.names {
			if due := b.dueOf(&o); o.dir.IsZero() && (first.IsZero() || due.Before(first)) {
				first = due
			}
		}
		if !d.left.none() && (first.IsZero() || d.left.since.Before(first)) {
			first = d.left.since
		}
	}
	return first
}

// never is a time that does not come.
var never = time.Unix(1<<40, 0)

// dueOf is when a file is due.
func (b *deferrals) dueOf(o *deferredName) time.Time {
	if o.job != nil && b.running(o.job) {
		return never
	}
	return o.wait.due
}

// dues finds, from a directory downwards, the names under which something is due now.
type dues struct {
	b     *deferrals
	now   time.Time
	names map[xtime.GFID][]string
	seen  map[xtime.GFID]bool
	taken map[xtime.GFID]int // at so many of the names that are left the crawl is to look
	all   bool               // all that are left count
}

// below tells whether anything is due in or below g. A directory that defers nothing any more has to be looked at, too.
func (u *dues) below(g xtime.GFID) bool {
	d := u.b.of[g]
	if d == nil {
		return true
	}
	if u.seen[g] {
		return u.needs(g, d)
	}
	u.seen[g] = true
	for name, o := range d.names {
		if o.dir.IsZero() && !u.now.Before(u.b.dueOf(&o)) || !o.dir.IsZero() && u.below(o.dir) {
			u.names[g] = append(u.names[g], name)
		}
	}
	return u.needs(g, d)
}

// needs tells whether a directory that was seen is to be visited.
func (u *dues) needs(g xtime.GFID, d *deferral) bool {
	return len(u.names[g]) > 0 || u.taken[g] > 0 || u.all && !d.left.none()
}

// due tells whether anything is due in or below a directory that has a deferral: files, or also names that are left.
func (b *deferrals) due(g xtime.GFID, now time.Time, files bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := &dues{b: b, now: now, all: !files, names: map[xtime.GFID][]string{}, seen: map[xtime.GFID]bool{}}
	return u.below(g)
}

// remind adds what is due to what hints tell, so that the crawl looks there, and some of the names that are left. r may be nil, and
// is given back as it is where nothing is due.
func (b *deferrals) remind(r *hintRange, root xtime.GFID, now time.Time, left names) *hintRange {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of[root] == nil {
		return r
	}
	share := left.few
	if r == nil || len(r.dirs) == 0 {
		share = left.share
	}
	u := &dues{b: b, now: now, taken: b.some(share), names: map[xtime.GFID][]string{}, seen: map[xtime.GFID]bool{}}
	if !u.below(root) {
		return r
	}
	if r == nil {
		r = newRange(b.of[root].coveredXtime)
	}
	u.addTo(r.dirs)
	return r
}

// absorb takes in what hints tell where that concerns nothing but files that wait anyway: then there is no need for a
// crawl. It does all or nothing.
func (b *deferrals) absorb(r *hintRange, h *debounce) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for g, t := range r.dirs {
		if !b.covers(g, t, r) {
			return false
		}
	}
	for g, t := range r.dirs {
		was := b.of[g]
		d := &deferral{copy: was.copy, stamp: was.stamp, coveredXtime: t.end, names: maps.Clone(was.names), left: was.left}
		for name := range t.names {
			o := d.names[name]
			if !o.dir.IsZero() {
				continue
			}
			if w, ok := h.touch(place{g, name}, t.end); ok {
				o.wait = w
				d.names[name] = o
			}
		}
		b.of[g] = d
	}
	return len(r.dirs) > 0
}

// covers tells whether what is told of a directory joins what has been reached there, and names only what is deferred.
func (b *deferrals) covers(g xtime.GFID, t *dirHint, r *hintRange) bool {
	d := b.of[g]
	if d == nil || len(t.names) == 0 || !slices.Contains(t.points, d.coveredXtime) {
		return false // nothing is known, or the directory itself has changed
	}
	for name, dir := range t.names {
		o, is := d.names[name]
		if !is || o.dir != dir || !dir.IsZero() && r.of(dir) == nil {
			return false
		}
	}
	return true
}
