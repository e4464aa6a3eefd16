package crawler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// ErrMaxDelete means that a crawl would remove more of the slave than the operator allows without being asked.
var ErrMaxDelete = errors.New("too much would be deleted on the slave")

// guard keeps a crawl from removing more than a share of what the slave had (invariant 10). How much that is gets counted
// only when much is removed, and only as far as needed to know that the share is not reached: the cost follows the
// removals, not the tree.
//
// What it refuses may have moved, so it is left standing, the crawl goes on, and meets what is new (wait.go). What moves
// from where it stands to its new place never counts; what was parked first counts until it is brought back (losses).
// What has come to the slave lately does not count, neither as removed nor as something that the slave had.
type guard struct {
	opts   *Options
	losses *losses
	free   int64    // may always be removed
	word   approved // under mu

	// later tells that the slave had been filled before this crawl: what the first one brings is what the slave has.
	later atomic.Bool

	mu  sync.Mutex // one decision at a time; never held while the slave is asked
	had int64      // what the slave had at least before what is young came

	removals sync.Mutex // guards the rest; taken after mu
	asked    int64      // may be removed, and is not removed yet
	leave    map[string]*leaving
	come     map[string]arrival // what is on its way to a place where nothing stood, or something young
	oldNames oldNames           // inodes that moved, and left their old names in the tree
	aging    map[string]bool    // places whose newcomers are young no more once they have them
}

// arrival is a new entry on its way.
type arrival struct {
	dir  *node
	name string
	gfid xtime.GFID
	was  uint64 // the key of what stands in its place; 0: nothing
}

// refusal is what a crawl did not remove.
type refusal struct {
	error
	who    map[xtime.GFID]int64 // for how many entries each inode counts; those without a GFID together
	before int64                // what was lost already
	limit  int64
	purge  Purge
}

func (r *refusal) Unwrap() error { return r.error }

// isRefused tells that the guard said no.
func isRefused(err error) bool { return errors.Is(err, ErrMaxDelete) }

// Repeats tells whether a crawl was refused what an earlier one had been refused already: by then that has not moved, it
// was removed. It may be right of what moved while either of them passed that it was not met.
func Repeats(err, before error) bool {
	var now, then *refusal
	if !errors.As(err, &now) || !errors.As(before, &then) {
		return false
	}
	n := now.before
	for g, size := range now.who {
		if then.who[g] > 0 {
			n += size
		}
	}
	return n > now.limit
}

// with adds what was refused elsewhere.
func (r *refusal) with(more *refusal) *refusal {
	if r == nil {
		return more
	}
	for g, size := range more.who {
		if g.IsZero() {
			size += r.who[g]
		}
		r.who[g] = size
	}
	r.purge.with(&more.purge)
	return r
}

// allow asks whether the entries of a directory may be parked, and counts them once they are. A directory counts with all that
// lies in it. What has to be known for that is asked of the slave between decisions, so that no visit waits for the answer to another.
func (g *guard) allow(ctx context.Context, n *node, stale []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(stale) == 0 {
		return nil
	}
	list, err := g.leaving(ctx, n, stale)
	q := &question{list: list}
	for err == nil {
		switch next := g.decide(q); {
		case next.refused != nil:
			return next.refused
		case next.promised:
			return nil
		case next.need > 0:
			err = g.count(ctx, q, next)
		default:
			q.list, err = g.withoutYoung(ctx, q.list, next.all)
			q.looked = true
		}
	}
	return err
}

// question is one that allow decides, and what has been asked for it.
type question struct {
	list    []leaving
	counted int64 // the slave's entries were counted up to there
	looked  bool  // directories were looked through for what is young
	word    bool  // the operator's word was taken into account
}

// decision is how a question stands: answered (refused, or promised), or what to ask of the slave before the next one: to count its
// entries up to need, or to look through directories for what is young, through all or those that are known to hold something young.
type decision struct {
	refused  *refusal
	promised bool
	need     int64
	before   int64 // what was gone, or promised, when need arose
	all      bool
}

// decide decides by what is known now. It asks nobody. What it promises, no later decision promises again.
func (g *guard) decide(q *question) decision {
	g.mu.Lock()
	defer g.mu.Unlock()
	over, before, need := g.over(q)
	if need > 0 {
		return decision{need: need, before: before}
	}
	if young := g.losses.allYoung(); young > 0 && !q.looked {
		if over == nil || !over.without(young) {
			return decision{all: over != nil}
		}
		over.say(over.sum()-young, g.had, g.opts.MaxDelete) // no need to look which of them are young
	}
	if over != nil && !q.word {
		q.word = true
		if list := g.approved(q.list); list != nil {
			q.list = list
			if over, before, need = g.over(q); need > 0 {
				return decision{need: need, before: before}
			}
		}
	}
	if over != nil {
		return decision{refused: over}
	}
	g.promise(q.list)
	return decision{promised: true}
}

// sum is what would be gone.
func (r *refusal) sum() int64 {
	n := r.before
	for _, size := range r.who {
		n += size
	}
	return n
}

// without tells whether it would be too much even if so many entries did not count.
func (r *refusal) without(young int64) bool { return r.sum()-young > r.limit }

// say puts it into words.
func (r *refusal) say(n, had int64, share int) {
	r.error = fmt.Errorf("%w: %d entries within a minute, of about %d that it has had for more than five minutes, over %d %%; "+
		"if that is right, see what it is and let it through with `georep approve MASTER SLAVE` (max-delete)", ErrMaxDelete, n,
		had, share)
}

// take counts entries of a directory that are parked on their way to another place, until they come back.
func (g *guard) take(ctx context.Context, n *node, moving []slave.EntryState) error {
	if g.opts.MaxDelete >= 100 || len(moving) == 0 {
		return nil
	}
	list, err := g.leaving(ctx, n, moving)
	if err == nil && g.losses.allYoung() > 0 {
		list, err = g.withoutYoung(ctx, list, false)
	}
	if err != nil {
		return err
	}
	g.promise(list)
	return nil
}

// over gives what is said of removals that are too much, nil if these are not, or how many of the slave's entries have to be counted to
// tell that. mu is held.
func (g *guard) over(q *question) (_ *refusal, before, need int64) {
	g.removals.Lock()
	r := &refusal{who: map[xtime.GFID]int64{}, before: g.losses.lately() + g.asked}
	g.removals.Unlock()
	n := r.before
	for i := range q.list {
		e := &q.list[i]
		n += e.old
		if e.old > 0 {
			r.who[e.gfid] += e.old
		}
	}
	if need = g.needed(n); need > q.counted {
		return nil, r.before, need
	}
	r.limit = max(g.free, g.had/100*int64(g.opts.MaxDelete))
	if n <= r.limit {
		return nil, r.before, 0
	}
	r.say(n, g.had, g.opts.MaxDelete)
	r.purge = Purge{Before: r.before, Had: g.had, Percent: g.opts.MaxDelete, Free: g.free}
	r.purge.add(q.list)
	return r, r.before, 0
}

// needed is how many entries the slave must have to allow so many removed ones; 0 where it is known to, or may lose them anyway. mu is
// held.
func (g *guard) needed(removed int64) int64 {
	need := (removed/int64(max(g.opts.MaxDelete, 1)) + 1) * 100
	if removed <= g.free || g.had >= need {
		return 0
	}
	return need
}

// promise notes what may go.
func (g *guard) promise(list []leaving) {
	g.removals.Lock()
	defer g.removals.Unlock()
	if g.leave == nil {
		g.leave = map[string]*leaving{}
	}
	for i := range list {
		e := &list[i]
		if was := g.leave[e.path]; was != nil {
			g.asked -= was.old
		}
		g.leave[e.path] = e
		g.asked += e.old
	}
}

// comes notes a new entry that is about to be sent.
func (g *guard) comes(path string, a arrival) {
	if g.opts.MaxDelete >= 100 || !g.later.Load() && g.losses.lately() == 0 {
		return
	}
	g.removals.Lock()
	defer g.removals.Unlock()
	if g.come == nil {
		g.come = map[string]arrival{}
	}
	g.come[path] = a
}

// ended counts what an operation did.
func (g *guard) ended(op *slave.Op, r slave.Result) {
	if g.opts.MaxDelete >= 100 {
		return
	}
	g.removals.Lock()
	defer g.removals.Unlock()
	if e := g.leave[op.Path]; e != nil && mayPark(op.Kind) {
		delete(g.leave, op.Path)
		g.asked -= e.old
		if r.Parked {
			g.losses.lose(e)
			g.parkedWith(e)
		}
	}
	a, is := g.come[op.Path]
	if !is || !makes(op.Kind) || errors.Is(r.Err, slave.ErrNeedContent) {
		return
	}
	delete(g.come, op.Path)
	switch {
	case r.Err != nil:
	case a.was != 0:
		g.losses.inherits(a.dir, a.name, a.was, a.gfid)
	default:
		g.losses.arrive(a, g.later.Load())
	}
}

// parkedWith takes the old names that went with a directory out of what is young: each counts as a further name of its inode, whose
// removal would lose nothing. Without this the inode itself could be removed uncounted. books is held.
func (g *guard) parkedWith(e *leaving) {
	for _, id := range g.oldNames.parked(e.path) {
		if e.young[dirKey(id)] == 0 { // else lose has done it
			g.losses.age(id)
		}
	}
}

// mayPark tells whether an operation may park what stands in its place.
func mayPark(k slave.OpKind) bool {
	return k == slave.OpPark || k == slave.OpUnpark || k == slave.OpLink
}

// makes tells whether an operation makes an entry.
func makes(k slave.OpKind) bool {
	return k == slave.OpMkdir || k == slave.OpPut || k == slave.OpSymlink || k == slave.OpNode || k == slave.OpLink
}

// gone counts an inode that left the tree unasked.
func (g *guard) gone(id xtime.GFID) { g.losses.lose(&leaving{gfid: id, old: 1}) }

// leaves notes that an inode moved and left its old name behind, so that no more is lost with that, nor with a directory that it
// is in.
func (g *guard) leaves(op *slave.Op) {
	g.losses.furtherName(op.Record.GFID)
	g.removals.Lock()
	defer g.removals.Unlock()
	dir, _ := beneath.Split(op.From)
	g.oldNames.add(dir, op.Record.GFID)
}

// oldNames counts old names that inodes left when they moved, by directory. The zero value has none. It is bounded: names beyond
// count as what they are, entries of their directories.
type oldNames struct {
	sum   int
	count map[string]int64        // in or below a directory
	names map[string][]xtime.GFID // in it, by inode
}

// add notes a name in dir.
func (b *oldNames) add(dir string, g xtime.GFID) {
	if b.count == nil {
		b.count, b.names = map[string]int64{}, map[string][]xtime.GFID{}
	}
	if len(b.count) >= maxCounted || b.sum >= maxCounted {
		return
	}
	b.sum++
	b.names[dir] = append(b.names[dir], g)
	for up := dir; up != ""; up, _ = beneath.Split(up) {
		b.count[up]++
	}
}

// parked forgets the names that have left the tree with a directory, and tells whose they were.
func (b *oldNames) parked(dir string) (gone []xtime.GFID) {
	n := b.count[dir]
	if n == 0 {
		return nil
	}
	for at, names := range b.names {
		if at == dir || strings.HasPrefix(at, dir+"/") {
			gone = append(gone, names...)
			delete(b.names, at)
		}
	}
	b.sum -= len(gone)
	for up := dir; up != ""; up, _ = beneath.Split(up) {
		b.count[up] -= n
	}
	maps.DeleteFunc(b.count, func(at string, n int64) bool { return n == 0 || strings.HasPrefix(at, dir+"/") })
	return gone
}

// leaving tells for how many entries each of the stale ones counts. What lies in directories counts in whole.
func (g *guard) leaving(ctx context.Context, n *node, stale []slave.EntryState) ([]leaving, error) {
	list, spare := make([]leaving, len(stale)), map[uint64]int32{}
	var dirs []string
	var at []int
	for i, s := range stale {
		e := &list[i]
		*e = leaving{path: join(n.path, s.Name), gfid: s.Record.GFID, dir: s.Kind == slave.Dir, all: 1,
			key: entryKey(n.entry.Record.GFID, s.Name, s.Record.GFID)}
		if e.dir {
			dirs, at = append(dirs, e.path), append(at, i)
			continue
		}
		if k := e.key; g.losses.isYoung(k) > spare[k] {
			spare[k]++
			e.young = map[uint64]int32{k: 1}
		} else {
			e.old = 1
		}
	}
	for len(dirs) > 0 {
		k := min(len(dirs), slave.MaxItems)
		counts, err := g.opts.Tree.Count(ctx, dirs[:k], countAll)
		if err != nil {
			return nil, err
		}
		g.removals.Lock()
		for i, c := range counts {
			list[at[i]].old, list[at[i]].all = max(c-g.oldNames.count[dirs[i]], 1), c
		}
		g.removals.Unlock()
		dirs, at = dirs[k:], at[k:]
	}
	return list, nil
}

// withoutYoung has directories in which something came lately count for the rest. all looks at the others, too: something
// young may have moved there.
func (g *guard) withoutYoung(ctx context.Context, list []leaving, all bool) ([]leaving, error) {
	for i := range list {
		e := &list[i]
		if !e.dir || !all && !g.losses.holdsYoung(e.gfid) {
			continue
		}
		old, young, err := g.within(ctx, e)
		if err != nil {
			return nil, err
		}
		e.old, e.young = min(e.old, old), young
	}
	return list, nil
}

// maxWithin bounds what is remembered of the directories in one that is to leave.
const maxWithin = 8 << 20

// within surveys a directory that is to leave, and tells what counts in it. Where that is more than can be remembered, all does.
func (g *guard) within(ctx context.Context, e *leaving) (old int64, young map[uint64]int32, err error) {
	young = map[uint64]int32{}
	sort := func(k uint64) {
		if g.losses.isYoung(k) > young[k] {
			young[k]++
		} else {
			old++
		}
	}
	sort(dirKey(e.gfid))
	todo := []slave.Query{{Path: e.path}}
	weight := queryWeight(&todo[0])
	for len(todo) > 0 {
		if weight > maxWithin {
			return e.old, nil, nil
		}
		now := todo[max(len(todo)-surveyDirs/visitors, 0):]
		todo = todo[: len(todo)-len(now) : len(todo)-len(now)]
		states, err := g.opts.Tree.Survey(ctx, now)
		if err != nil {
			return 0, nil, err
		}
		left := slices.Clone(now[len(states):])
		for i := range states {
			s, q := &states[i], now[i]
			weight -= queryWeight(&q)
			more := below(s, &q)
			if s.Truncated && len(more) == 0 {
				return e.old, nil, nil
			}
			for k := range more {
				weight += queryWeight(&more[k])
			}
			left = append(left, more...)
			for _, c := range s.Entries {
				sort(entryKey(s.Record.GFID, c.Name, c.Record.GFID))
			}
		}
		todo = append(todo, left...)
	}
	return old, young, nil
}

// below asks for the directories in one that was surveyed, or for its shares where it is too large.
func below(s *slave.DirState, q *slave.Query) (out []slave.Query) {
	if s.Truncated {
		return smaller(*q, s.Total)
	}
	for _, c := range s.Entries {
		if c.Kind == slave.Dir {
			out = append(out, slave.Query{Path: join(q.Path, c.Name)})
		}
	}
	return out
}

func queryWeight(q *slave.Query) int { return slave.ItemCost + len(q.Path) }

// countAll is no limit.
const countAll = 1 << 62

// count makes had as large as a question needs it, if the slave is. What was removed before may or may not be gone by now; it is counted
// as gone.
func (g *guard) count(ctx context.Context, q *question, d decision) error {
	young := g.losses.allYoung()
	// Twice as much, so that the next removals need no count of their own.
	counts, err := g.opts.Tree.Count(ctx, []string{""}, 2*d.need+young)
	if err != nil {
		return err
	}
	q.counted = d.need
	g.mu.Lock()
	defer g.mu.Unlock()
	g.had = max(g.had, counts[0]+d.before-young)
	return nil
}
