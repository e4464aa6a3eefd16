package crawler

import (
	"sync"

	"georep/marker/hint"
	"georep/marker/xtime"
)

// Hints gathers what the marker tells until the next Pass uses it. It is a hint.Sink and safe for concurrent use; the
// zero value is ready.
//
// What it holds is one run: the hints from one mark to another with none left out, which shows in the root's xtimes, each
// of which has to be the one that the next hint says was there before. Whatever does not join ends the run, and another
// one begins with what came.
type Hints struct {
	mu    sync.Mutex
	wake  chan struct{}
	up    bool
	blind bool // there may be a mark of which no hint tells
	seq   uint64
	run   *hintRange
	cost  int // of run, roughly in bytes
}

// hintRange is what an unbroken series of hints says, by directory.
type hintRange struct {
	begin xtime.Time // the root's before the first mark
	first xtime.Time // of the first mark; 0 where there was none
	end   xtime.Time // of the last; what it was before where there was none
	dirs  map[xtime.GFID]*dirHint
}

// dirHint is one directory: all that changed in it from the first of points to end is under names. What changed below it
// is so below names, which those of its directories that were marked are among.
type dirHint struct {
	points []xtime.Time // its xtimes before the first mark, and after each but the last
	end    xtime.Time   // after the last
	names  map[string]xtime.GFID
	// reminder is set where no hint tells of the directory, but something is due there (deferrals.go).
	reminder bool
	taken    int       // of the names that are left there, those that are among names
	from     *deferral // that has these

	waits int64 // entries under names that are pending in a crawl, which has yet to look at them; under crawl.mu
}

// Bounds of a run. Beyond them a directory is listed, or the run dropped.
const (
	rangeBytes = 24 << 20
	nameBytes  = 64 // what a name costs beyond its length
	dirBytes   = 256
	toldNames  = 1 << 16
)

// Up implements hint.Sink.
func (h *Hints) Up() { h.change(func() { h.up, h.blind = true, true; h.reset() }) }

// Gap implements hint.Sink.
func (h *Hints) Gap() { h.change(func() { h.blind = true; h.reset() }) }

// Down implements hint.Sink.
func (h *Hints) Down() { h.change(func() { h.up, h.blind = false, true; h.reset() }) }

// Hint implements hint.Sink.
func (h *Hints) Hint(m *hint.Hint) {
	h.change(func() {
		root := &m.Dirs[len(m.Dirs)-1]
		if h.run == nil || m.Seq != h.seq+1 || root.Before != h.run.end {
			h.reset()
			h.run = newRange(root.Before)
		}
		if h.run.first == 0 {
			h.run.first = m.Xtime
		}
		h.seq, h.run.end, h.blind = m.Seq, m.Xtime, false
		for i := range m.Dirs {
			h.add(&m.Dirs[i], m.Xtime)
		}
		if h.cost > rangeBytes {
			h.reset()
			h.blind = true
		}
	})
}

// change does something under the lock and wakes whoever waits.
func (h *Hints) change(do func()) {
	h.mu.Lock()
	do()
	wake := h.wakes()
	h.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

// wakes is called with mu held.
func (h *Hints) wakes() chan struct{} {
	if h.wake == nil {
		h.wake = make(chan struct{}, 1)
	}
	return h.wake
}

func (h *Hints) reset() { h.run, h.cost = nil, 0 }

// add lets a directory's series go on, or begin.
func (h *Hints) add(d *hint.Dir, at xtime.Time) {
	if d.Whole {
		delete(h.run.dirs, d.GFID)
		return
	}
	t := h.run.dirs[d.GFID]
	if t == nil || t.end != d.Before {
		t = &dirHint{names: map[string]xtime.GFID{}, end: d.Before}
		h.run.dirs[d.GFID] = t
		h.cost += dirBytes
	}
	t.points, t.end = append(t.points, t.end), at
	h.cost += xtime.Size
	for _, n := range d.Names {
		if _, have := t.names[n.Name]; !have {
			h.cost += len(n.Name) + nameBytes
		}
		t.names[n.Name] = n.Dir
	}
	if len(t.names) > toldNames {
		delete(h.run.dirs, d.GFID)
	}
}

// drain gives the run away to one Pass; nil where there is none. What comes later joins on to it.
func (h *Hints) drain() *hintRange {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run == nil {
		return nil
	}
	out := h.run
	h.run, h.cost = newRange(out.end), 0
	return out
}

func newRange(begin xtime.Time) *hintRange {
	return &hintRange{begin: begin, end: begin, dirs: map[xtime.GFID]*dirHint{}}
}

// after is the first mark that followed the one of x, 0 where that is not known.
func (h *Hints) after(x xtime.Time) xtime.Time {
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run == nil || h.run.begin != x {
		return 0
	}
	return h.run.first
}

// Names counts the entries that changed, as far as the marker has told and no Pass has begun to look. A nil Hints has none.
func (h *Hints) Names() (n int64) {
	if h == nil {
		return 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.run.names()
}

// names counts what changed, but for the directories that only lead there.
func (r *hintRange) names() (n int64) {
	if r == nil {
		return 0
	}
	for _, t := range r.dirs {
		n += t.entries()
	}
	return n
}

// entries counts the names that are no directories of the same run.
func (t *dirHint) entries() (n int64) {
	for _, g := range t.names {
		if g.IsZero() {
			n++
		}
	}
	return n
}

// Wake gives a value when something came.
func (h *Hints) Wake() <-chan struct{} {
	if h == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.wakes()
}

// flowing tells whether the marker is connected: what it marks, it tells.
func (h *Hints) flowing() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up
}

// comes tells whether it is worth to wait a moment for the hint of a mark that gave the root x: the marker is there, it
// has not said that it left something out, and nothing is here yet.
func (h *Hints) comes(x xtime.Time) bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up && !h.blind && (h.run == nil || h.run.end != x && len(h.run.dirs) == 0)
}

// following tells whether a Pass now has hints to go by.
func (h *Hints) following() bool {
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.up && !h.blind
}

// settled says that the slave is in step: nothing is outstanding of which no hint told.
func (h *Hints) settled() {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.blind = h.blind && !h.up
}

// of is what a run says of a directory, or nil.
func (r *hintRange) of(g xtime.GFID) *dirHint {
	if r == nil {
		return nil
	}
	return r.dirs[g]
}
