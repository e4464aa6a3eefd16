package crawler

import (
	"slices"
	"time"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// This file has the names that a directory defers because a crawl gave way to what changed elsewhere (giveway.go). There may be
// tens of thousands. So they are kept as a list, of which each crawl takes some from the front, and not in the map of what is
// deferred under one name each: what a crawl does for those that it does not look at is nothing.
//
// The list says that the slave has everything under these names up to one floor, and nothing more. So a name may stand on it that is
// in step, or gone by now: then a look at it is all that comes of it.

// vacuous is a stamp that claims nothing: no change has an xtime as old. A directory that the slave has no stamp of gets it where it
// is to defer names, since a deferral is believed only of a copy that carries a stamp, which goes when anything is taken from the copy.
const vacuous xtime.Time = 1

// leftNames are names of one directory. The zero value has none. A list of names is never changed, only made anew.
type leftNames struct {
	names     []string
	safeXtime xtime.Time // up to there the slave has everything under them
	since     time.Time  // of the first change that it lacks
	dir       string     // as it was
	once      int        // so many there were when each was on the list once
}

// leftTwice is how many names a list may have before any is looked for that is on it twice.
const leftTwice = 1 << 12

func (l *leftNames) none() bool { return len(l.names) == 0 }

// without is what is left when a crawl has taken some from the front.
func (l leftNames) without(taken int) leftNames {
	if taken >= len(l.names) {
		return leftNames{}
	}
	l.names = l.names[taken:]
	return l
}

// add takes in names of a list that nobody else has yet: they may come one by one.
func (l *leftNames) add(more leftNames) {
	if !l.none() {
		more.names = append(l.names, more.names...)
		more.safeXtime, more.since = min(l.safeXtime, more.safeXtime), earlier(l.since, more.since)
	}
	*l = more
}

// and is both, those of l first.
func (l leftNames) and(more leftNames) leftNames {
	switch {
	case l.none():
		return more
	case more.none():
		return l
	}
	both := leftNames{names: append(slices.Clip(l.names), more.names...), dir: more.dir, safeXtime: min(l.safeXtime, more.safeXtime),
		since: earlier(l.since, more.since), once: l.once}
	if len(both.names) > leftTwice+2*l.once {
		both.names = onlyOnce(both.names)
		both.once = len(both.names)
	}
	return both
}

// onlyOnce leaves the first of names that are the same: those that change all the time are left again by each crawl that gives way.
func onlyOnce(names []string) []string {
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		was := seen[name]
		seen[name] = true
		return was
	})
}

// leftBy is all that a node leaves: what this crawl gave up, behind what it did not take of what was left before. One that was
// listed has looked at all of that. One that moved, and that this crawl has come to before, defers something else by now: nothing was
// taken of that. crawl.mu is held.
func leftBy(n *node) leftNames {
	switch {
	case n.hint == nil || n.old == nil:
		return n.deferred.left
	case n.hint.from != n.old:
		return n.old.left.and(n.deferred.left)
	}
	return n.old.left.without(n.hint.taken).and(n.deferred.left)
}

// anyLeft tells whether a directory has names left.
func (b *deferrals) anyLeft() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.of {
		if !d.left.none() {
			return true
		}
	}
	return false
}

// stuck tells whether no fewer names are left than when it was asked last.
func (b *deferrals) stuck() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := 0
	for _, d := range b.of {
		left += len(d.left.names)
	}
	before := b.before
	b.before = left
	return left > 0 && left >= before && before > 0
}

// some shares out at how many of the names that are left a crawl looks: in as few directories as have so many, in any order. b.mu
// is held.
func (b *deferrals) some(share int) map[xtime.GFID]int {
	taken := map[xtime.GFID]int{}
	for g, d := range b.of {
		if k := min(share, len(d.left.names)); k > 0 {
			taken[g] = k
			share -= k
		}
	}
	return taken
}

// addTo has the crawl look at what is due in the directories that were found, and at some of the names that are left there. b.mu is
// held.
func (u *dues) addTo(dirs map[xtime.GFID]*dirHint) {
	for g := range u.seen {
		d := u.b.of[g]
		if !u.needs(g, d) {
			continue
		}
		t := dirs[g]
		if t == nil {
			t = &dirHint{end: d.coveredXtime, names: map[string]xtime.GFID{}, reminder: true}
			dirs[g] = t
		}
		for _, name := range u.names[g] {
			t.remind(name, d.names[name].dir)
		}
		t.taken, t.from = u.taken[g], d
		for _, name := range d.left.names[:t.taken] {
			t.remind(name, xtime.GFID{})
		}
	}
}

// remind adds a name, unless hints tell of it.
func (t *dirHint) remind(name string, dir xtime.GFID) {
	if _, have := t.names[name]; !have {
		t.names[name] = dir
	}
}

// reminder is what is due in a directory of which the parent was listed, and which has not changed, nil where that is not known or
// nothing is: then it need not be listed itself.
func (b *deferrals) reminder(e *slave.EntryState, at xtime.Time, now time.Time, share int) *dirHint {
	g := e.Record.GFID
	d := b.known(g, e.Copy, e.Record.Xtime)
	if d == nil || d.coveredXtime != at {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	u := &dues{b: b, now: now, all: true, names: map[xtime.GFID][]string{}, seen: map[xtime.GFID]bool{}}
	dirs := map[xtime.GFID]*dirHint{}
	if b.of[g] == d && u.below(g) {
		u.seen = map[xtime.GFID]bool{g: true} // what is below is reminded of on the way down
		u.taken = map[xtime.GFID]int{g: min(share, len(d.left.names))}
		u.addTo(dirs)
	}
	return dirs[g]
}

// untoldNews tells whether a root has changed since what was reached when its deferral was made, and no hint will tell of that. comes
// tells that one may: it is given the time of one crawl.
func (b *deferrals) untoldNews(root xtime.GFID, x xtime.Time, comes bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, before := b.of[root], b.awaited
	if b.awaited = x; d == nil || d.coveredXtime == x {
		return false
	}
	return !comes || before == x
}

// first is a name that is left, as it is shown: the others come behind it.
func (l *leftNames) first() Waiting {
	return Waiting{Path: beneath.Join(l.dir, l.names[0]), Since: l.since, Large: true}
}
