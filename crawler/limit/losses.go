package limit

import (
	"encoding/binary"
	"hash/fnv"
	"sync"
	"time"

	"georep/marker/xtime"
)

// removalWindow is how far back removals count: a tree that is deleted while the slave follows closely goes in many crawls,
// each of which removes little.
const removalWindow = time.Minute

// youngFor is how long an entry must have been on the slave before its removal counts. What was unpacked a moment ago and is
// removed again loses nothing that the slave had before.
const youngFor = 5 * time.Minute

// maxCounted bounds each of the maps here. A removal beyond it counts although the entry comes back, and an arrival beyond
// it counts as old.
const maxCounted = 100_000

// Losses is by how much the slave has shrunk lately, over all crawls. An entry counts from the moment it has left the tree,
// by what the slave answered, until it is back: so neither a removal that fails nor one that is repeated counts twice, and a
// move that is seen from its old place first counts only for as long as it is seen by half. Any arrival offsets an
// earlier removal. One that offsets nothing is young for a while, and its removal does not count; it earns no credit for
// the removal of other entries. It is safe for concurrent use.
//
// An example: a directory of 100 files moves. Where the crawl comes to its old place first it is parked, and counts as 101 lost. When its new
// place is come to, the slave takes it from the park, and Back takes the 101 away again. In between the crawl could be refused something else;
// that is then met again, once the move is through. Where the new place is come to first nothing ever counts.
//
// Another one: an editor saves a file as a new inode, over the old name. The new one is announced (Guard.Comes) with the old one as what it
// replaces, so it is young only if that was: to save again and again gives no credit for a removal.
type Losses struct {
	now func() time.Time

	mu    sync.Mutex
	began int64 // when the crawl did; since then everything counts, however long that takes
	swept int64
	lost  map[xtime.GFID]loss // what left the tree, by the inode that was parked
	rest  []loss              // the same without a GFID, or beyond the bound; oldest first, one a second
	sum   int64               // of both

	turned int64
	young  recent               // names that came lately, by EntryKey
	into   recent               // directories in or below which something did, by dirKey
	taken  map[xtime.GFID]taken // the young ones among what was parked
}

// loss is n entries, and the second in which they left, since 1970.
type loss struct{ at, n int64 }

// taken are young names that left the tree with the inode that was parked.
type taken struct {
	at    int64
	names map[uint64]int32
}

// leaving is an entry that is to leave the tree, with all that lies in it.
type leaving struct {
	path  string
	gfid  xtime.GFID
	key   uint64 // EntryKey
	dir   bool
	all   int64            // entries, with this one
	old   int64            // those that count
	young map[uint64]int32 // the others, by EntryKey
}

// dirKey stands for an inode.
func dirKey(g xtime.GFID) uint64 { return binary.LittleEndian.Uint64(g[:]) }

// EntryKey stands for the names of an inode, or for one name where the slave can keep no GFID.
func EntryKey(dir xtime.GFID, name string, g xtime.GFID) uint64 {
	if !g.IsZero() {
		return dirKey(g)
	}
	h := fnv.New64a()
	h.Write(dir[:])
	h.Write([]byte(name))
	return h.Sum64()
}

// NewLosses has lost nothing. now is the clock.
func NewLosses(now func() time.Time) *Losses { return &Losses{now: now} }

// Start begins a crawl. What it removes counts until its end, however long that takes.
func (l *Losses) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began = l.now().Unix()
}

// Lately is by how many entries the slave has shrunk within the window, less what has come in their place. While a crawl lasts longer than
// the window, all of the crawl counts.
func (l *Losses) Lately() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	return l.sum
}

// sweep forgets what is older than the window. mu is held.
func (l *Losses) sweep() {
	now := l.now().Unix()
	if now == l.swept {
		return
	}
	l.swept = now
	old := min(now-int64(removalWindow/time.Second), l.began)
	for g, one := range l.lost {
		if one.at < old {
			l.sum -= one.n
			delete(l.lost, g)
		}
	}
	for len(l.rest) > 0 && l.rest[0].at < old {
		l.sum -= l.rest[0].n
		l.rest = l.rest[1:]
	}
	for g, one := range l.taken {
		if one.at < old {
			delete(l.taken, g)
		}
	}
}

// turn forgets what is not young any more. mu is held.
func (l *Losses) turn() {
	now, each := l.now().Unix(), int64(youngFor/time.Second)
	if l.turned == 0 {
		l.turned = now
	}
	for range min((now-l.turned)/each, 2) {
		l.young.turn()
		l.into.turn()
		l.turned = now
	}
}

// lose counts what left the tree.
func (l *Losses) lose(e *leaving) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().Unix()
	l.turn()
	for k, n := range e.young {
		l.young.add(k, -n)
	}
	if len(e.young) > 0 && !e.gfid.IsZero() && len(l.taken) < maxCounted {
		if l.taken == nil {
			l.taken = map[xtime.GFID]taken{}
		}
		l.taken[e.gfid] = taken{now, e.young}
	}
	if e.old == 0 {
		return
	}
	l.sum += e.old
	one, is := l.lost[e.gfid]
	if e.gfid.IsZero() || !is && len(l.lost) >= maxCounted {
		l.loseMore(now, e.old)
		return
	}
	if l.lost == nil {
		l.lost = map[xtime.GFID]loss{}
	}
	l.lost[e.gfid] = loss{now, one.n + e.old}
}

// loseMore counts what cannot be told by an inode, by the second. mu is held.
func (l *Losses) loseMore(now, n int64) {
	if k := len(l.rest) - 1; k >= 0 && l.rest[k].at == now {
		l.rest[k].n += n
		return
	}
	l.rest = append(l.rest, loss{now, n})
}

// arrive counts a new entry. Where it offsets nothing it is young, if it may be.
func (l *Losses) arrive(a Arrival, young bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	k := EntryKey(a.Dir.GFID(), a.Name, a.GFID)
	if l.young.count(k) == 0 && (l.sum > 0 && l.makesUp(a.Dir, a.GFID) || !young) {
		return
	}
	l.young.add(k, 1)
	for p := a.Dir; p != nil && l.into.newly(dirKey(p.GFID())); p = p.Above() {
	}
}

// makesUp lets an arrival offset the loss of its inode, or else one entry of a directory of which a copy is parked, or
// else any other. mu is held.
func (l *Losses) makesUp(n Dir, g xtime.GFID) bool {
	if l.found(g, 1) {
		return true
	}
	for p := n; p != nil; p = p.Above() {
		if l.found(p.GFID(), 1) {
			return true
		}
	}
	return l.offset(1)
}

// found takes n of what an inode counts for away. mu is held.
func (l *Losses) found(g xtime.GFID, n int64) bool {
	one, is := l.lost[g]
	if !is {
		return false
	}
	n = min(n, one.n)
	l.sum -= n
	if one.n -= n; one.n == 0 {
		delete(l.lost, g)
	} else {
		l.lost[g] = one
	}
	return true
}

// offset takes n of any losses away, if there are any. mu is held.
func (l *Losses) offset(n int64) bool {
	had := l.sum > 0
	for k := len(l.rest) - 1; k >= 0 && n > 0; k-- {
		less := min(n, l.rest[k].n)
		l.rest[k].n, l.sum, n = l.rest[k].n-less, l.sum-less, n-less
		if l.rest[k].n == 0 {
			l.rest = l.rest[:k]
		}
	}
	for g, one := range l.lost {
		if n == 0 {
			break
		}
		less := min(n, one.n)
		l.found(g, less)
		n -= less
	}
	return had
}

// inherits lets what took the place of a young entry be young.
func (l *Losses) inherits(n Dir, name string, was uint64, g xtime.GFID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.young.count(was) > 0 {
		l.young.add(was, -1)
		l.young.add(EntryKey(n.GFID(), name, g), 1)
	}
}

// FurtherName notes that an inode got one, so that the removal of one loses nothing: its content stays under the other.
func (l *Losses) FurtherName(g xtime.GFID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	l.young.add(dirKey(g), 1)
}

// Back counts an inode that is in the tree again from where it had been parked itself, a directory with all in it. It gives
// false where nothing is known of its loss.
func (l *Losses) Back(g xtime.GFID, dir bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one, counts := l.lost[g]
	if counts && !dir {
		return l.found(g, 1)
	}
	names, had := l.taken[g]
	if counts {
		l.found(g, one.n)
	}
	delete(l.taken, g)
	for k, n := range names.names {
		l.young.add(k, n)
	}
	return counts || had
}

// BackWithin counts n entries that are in the tree again, and were parked within the directory top.
func (l *Losses) BackWithin(top, g xtime.GFID, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if in := l.taken[top].names; in[dirKey(g)] > 0 {
		in[dirKey(g)]--
		l.young.add(dirKey(g), 1)
		n--
	}
	if n > 0 && !l.found(top, n) {
		l.offset(n)
	}
}

// IsYoung tells how many names came lately, of those that a key (EntryKey) stands for. So many of them may be removed and lose nothing that
// the slave had before.
func (l *Losses) IsYoung(k uint64) int32 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	return l.young.count(k)
}

// age has one name of an inode be young no more.
func (l *Losses) age(g xtime.GFID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.young.add(dirKey(g), -1)
}

// cameLately tells whether an inode is young, or was when it was parked a moment ago.
func (l *Losses) cameLately(g xtime.GFID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	return l.young.count(dirKey(g)) > 0 || l.taken[g].names[dirKey(g)] > 0
}

// holdsYoung tells whether something came to a directory lately, or below it. It may say so of one that holds nothing young any more.
func (l *Losses) holdsYoung(g xtime.GFID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.into.count(dirKey(g)) > 0 || l.young.count(dirKey(g)) > 0
}

// allYoung is how many entries are young.
func (l *Losses) allYoung() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	return l.young.sum
}

// recent is a multiset of what came lately, in two generations.
type recent struct {
	gens [2]map[uint64]int32
	sum  int64
}

// count is how often a key is in either generation.
func (r *recent) count(k uint64) int32 { return r.gens[0][k] + r.gens[1][k] }

// add adds n, which may be negative.
func (r *recent) add(k uint64, n int32) {
	for i := 0; i < 2 && n < 0; i++ {
		less := min(-n, r.gens[i][k])
		if less == 0 {
			continue
		}
		if r.gens[i][k] -= less; r.gens[i][k] == 0 {
			delete(r.gens[i], k)
		}
		n, r.sum = n+less, r.sum-int64(less)
	}
	if n <= 0 || len(r.gens[0]) >= maxCounted {
		return
	}
	if r.gens[0] == nil {
		r.gens[0] = map[uint64]int32{}
	}
	r.gens[0][k] += n
	r.sum += int64(n)
}

// newly adds a key to the generation of today, and tells whether it was not in it.
func (r *recent) newly(k uint64) bool {
	if r.gens[0][k] > 0 {
		return false
	}
	r.add(k, 1)
	return r.gens[0][k] > 0
}

// turn begins a generation, and forgets the one before the last: what is added is kept for one to two of them.
func (r *recent) turn() {
	for _, n := range r.gens[1] {
		r.sum -= int64(n)
	}
	r.gens[1], r.gens[0] = r.gens[0], nil
}
