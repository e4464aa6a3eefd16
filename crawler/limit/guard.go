package limit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"georep/crawler/share"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// ErrMaxDelete means that a crawl would remove more of the slave than the operator allows without being asked.
var ErrMaxDelete = errors.New("too much would be deleted on the slave")

// Guard keeps a crawl from removing more than a share of what the slave had (invariant 10). How much that is gets counted
// only when much is removed, and only as far as needed to know that the share is not reached: the cost follows the
// removals, not the tree.
//
// What it refuses may have moved, so it is left standing, the crawl goes on, and meets what is new (wait.go). What moves
// from where it stands to its new place never counts; what was parked first counts until it is brought back (Losses).
// What has come to the slave lately does not count, neither as removed nor as something that the slave had.
type Guard struct {
	opts   Options
	losses *Losses
	word   approved // under mu

	// later tells that the slave had been filled before this crawl: what the first one brings is what the slave has.
	later atomic.Bool // FilledBefore

	mu  sync.Mutex // one decision at a time; never held while the slave is asked
	had int64      // what the slave had at least before what is young came

	removals sync.Mutex // guards the rest; taken after mu
	asked    int64      // may be removed, and is not removed yet
	leave    map[string]*leaving
	come     map[string]Arrival // what is on its way to a place where nothing stood, or something young
	oldNames oldNames           // inodes that moved, and left their old names in the tree
	aging    map[string]bool    // places whose newcomers are young no more once they have them
}

// Arrival is a new entry on its way.
type Arrival struct {
	Dir  Dir
	Name string
	GFID xtime.GFID
	Was  uint64 // the key of what stands in its place; 0: nothing
}

// Refusal is what a crawl did not remove.
type Refusal struct {
	error
	who    map[xtime.GFID]int64 // for how many entries each inode counts; those without a GFID together
	before int64                // what was lost already
	limit  int64
	purge  Purge
}

func (r *Refusal) Unwrap() error { return r.error }

// IsRefused tells that a Guard said no. Any other error of its methods is the slave's, and ends the session.
func IsRefused(err error) bool { return errors.Is(err, ErrMaxDelete) }

// Repeats tells whether a crawl was refused what an earlier one had been refused already: by then that has not moved, it
// was removed. It may be right of what moved while either of them passed that it was not met.
func Repeats(err, before error) bool {
	var now, then *Refusal
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

// With adds what was refused elsewhere in the same crawl, and gives the sum. r may be nil; more is not to be used afterwards.
func (r *Refusal) With(more *Refusal) *Refusal {
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

// Allow asks whether the entries of a directory may be parked, and counts them once they are. A directory counts with all that
// lies in it. What has to be known for that is asked of the slave between decisions, so that no visit waits for the answer to another.
func (g *Guard) Allow(ctx context.Context, n Dir, stale []slave.EntryState) error {
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
	list    []leaving // what is to go, and for how many entries each counts by what is known
	counted int64     // the slave's entries were counted up to there
	looked  bool      // directories were looked through for what is young
	word    bool      // the operator's word was taken into account
}

// decision is how a question stands: answered (refused, or promised), or what to ask of the slave before the next one: to count its
// entries up to need, or to look through directories for what is young, through all or those that are known to hold something young.
type decision struct {
	refused  *Refusal
	promised bool
	need     int64
	before   int64 // what was gone, or promised, when need arose
	all      bool
}

// decide decides by what is known now. It asks nobody. What it promises, no later decision promises again.
func (g *Guard) decide(q *question) decision {
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

// sum is what would be gone: what was lost within the window, what was promised, and what this is about.
func (r *Refusal) sum() int64 {
	n := r.before
	for _, size := range r.who {
		n += size
	}
	return n
}

// without tells whether it would be too much even if so many entries did not count.
func (r *Refusal) without(young int64) bool { return r.sum()-young > r.limit }

// say puts it into words.
func (r *Refusal) say(n, had int64, share int) {
	r.error = fmt.Errorf("%w: %d entries within a minute, of about %d that it has had for more than five minutes, over %d %%; "+
		"if that is right, see what it is and let it through with `georep approve MASTER SLAVE` (max-delete)", ErrMaxDelete, n,
		had, share)
}

// Take counts entries of a directory that are parked on their way to another place, until they come back. It refuses nothing: where they
// belong is known, and a crawl that is cut off in between leaves them counted, which errs to the safe side.
func (g *Guard) Take(ctx context.Context, n Dir, moving []slave.EntryState) error {
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
func (g *Guard) over(q *question) (_ *Refusal, before, need int64) {
	g.removals.Lock()
	r := &Refusal{who: map[xtime.GFID]int64{}, before: g.losses.Lately() + g.asked}
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
	r.limit = max(g.opts.Free, g.had/100*int64(g.opts.MaxDelete))
	if n <= r.limit {
		return nil, r.before, 0
	}
	r.say(n, g.had, g.opts.MaxDelete)
	r.purge = Purge{Before: r.before, Had: g.had, Percent: g.opts.MaxDelete, Free: g.opts.Free}
	r.purge.add(q.list)
	return r, r.before, 0
}

// needed is how many entries the slave must have to allow so many removed ones; 0 where it is known to, or may lose them anyway. mu is
// held.
func (g *Guard) needed(removed int64) int64 {
	need := (removed/int64(max(g.opts.MaxDelete, 1)) + 1) * 100
	if removed <= g.opts.Free || g.had >= need {
		return 0
	}
	return need
}

// promise notes what may go. It counts from now on, until Ended is told what became of it. A place that is promised again counts once.
func (g *Guard) promise(list []leaving) {
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

// Comes notes a new entry that is about to be sent to path. Whether it comes is known by what Ended is told; an arrival of which nothing is
// told counts for nothing.
func (g *Guard) Comes(path string, a Arrival) {
	if g.opts.MaxDelete >= 100 || !g.later.Load() && g.losses.Lately() == 0 {
		return
	}
	g.removals.Lock()
	defer g.removals.Unlock()
	if g.come == nil {
		g.come = map[string]Arrival{}
	}
	g.come[path] = a
}

// Ended counts what an operation did, by the slave's answer. It has to be told of each operation once, in any order and from any goroutine:
// of those that may park something, what was promised is settled, and of those that make something, what was announced.
func (g *Guard) Ended(op *slave.Op, r slave.Result) {
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
	case a.Was != 0:
		g.losses.inherits(a.Dir, a.Name, a.Was, a.GFID)
	default:
		g.losses.arrive(a, g.later.Load())
	}
}

// parkedWith takes the old names that went with a directory out of what is young: each counts as a further name of its inode, whose
// removal would lose nothing. Without this the inode itself could be removed uncounted. removals is held.
func (g *Guard) parkedWith(e *leaving) {
	for _, id := range g.oldNames.parked(e.path) {
		if e.young[dirKey(id)] == 0 { // else lose has done it
			g.losses.age(id)
		}
	}
}

// mayPark tells whether an operation may park what stands in its place. OpLink and OpUnpark do where a move swaps places.
func mayPark(k slave.OpKind) bool {
	return k == slave.OpPark || k == slave.OpUnpark || k == slave.OpLink
}

// makes tells whether an operation makes an entry where nothing stood. A content that replaces another one is the same operation, and no
// arrival: nobody announces it (Comes).
func makes(k slave.OpKind) bool {
	return k == slave.OpMkdir || k == slave.OpPut || k == slave.OpSymlink || k == slave.OpNode || k == slave.OpLink
}

// Gone counts an inode that left the tree unasked, as when a place had to be cleared for a move and the inode could not be put back.
func (g *Guard) Gone(id xtime.GFID) { g.losses.lose(&leaving{gfid: id, old: 1}) }

// Leaves notes that an inode moved and left its old name behind, so that no more is lost with that, nor with a directory that it
// is in.
func (g *Guard) Leaves(op *slave.Op) {
	g.losses.FurtherName(op.Record.GFID)
	g.removals.Lock()
	defer g.removals.Unlock()
	dir, _ := beneath.Split(op.From)
	g.oldNames.add(dir, op.Record.GFID)
}

// leaving tells for how many entries each of the stale ones counts. What lies in directories counts in whole.
func (g *Guard) leaving(ctx context.Context, n Dir, stale []slave.EntryState) ([]leaving, error) {
	list, spare := make([]leaving, len(stale)), map[uint64]int32{}
	var dirs []string
	var at []int
	for i, s := range stale {
		e := &list[i]
		*e = leaving{path: beneath.Join(n.Path(), s.Name), gfid: s.Record.GFID, dir: s.Kind == slave.Dir, all: 1,
			key: EntryKey(n.GFID(), s.Name, s.Record.GFID)}
		if e.dir {
			dirs, at = append(dirs, e.path), append(at, i)
			continue
		}
		if k := e.key; g.losses.IsYoung(k) > spare[k] {
			spare[k]++
			e.young = map[uint64]int32{k: 1}
		} else {
			e.old = 1
		}
	}
	for len(dirs) > 0 {
		k := min(len(dirs), slave.MaxItems)
		counts, err := g.opts.Slave.Count(ctx, dirs[:k], countAll)
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
func (g *Guard) withoutYoung(ctx context.Context, list []leaving, all bool) ([]leaving, error) {
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
func (g *Guard) within(ctx context.Context, e *leaving) (old int64, young map[uint64]int32, err error) {
	young = map[uint64]int32{}
	sort := func(k uint64) {
		if g.losses.IsYoung(k) > young[k] {
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
		now := todo[max(len(todo)-surveyed, 0):]
		todo = todo[: len(todo)-len(now) : len(todo)-len(now)]
		states, err := g.opts.Slave.Survey(ctx, now)
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
				sort(EntryKey(s.Record.GFID, c.Name, c.Record.GFID))
			}
		}
		todo = append(todo, left...)
	}
	return old, young, nil
}

// below asks for the directories in one that was surveyed, or for its shares where it is too large.
func below(s *slave.DirState, q *slave.Query) (out []slave.Query) {
	if s.Truncated {
		return share.Smaller(*q, s.Total)
	}
	for _, c := range s.Entries {
		if c.Kind == slave.Dir {
			out = append(out, slave.Query{Path: beneath.Join(q.Path, c.Name)})
		}
	}
	return out
}

// queryWeight is about how many bytes of memory a question to come needs.
func queryWeight(q *slave.Query) int { return slave.ItemCost + len(q.Path) }

// countAll is no limit.
const countAll = 1 << 62

// count makes had as large as a question needs it, if the slave is. What was removed before may or may not be gone by now; it is counted
// as gone.
func (g *Guard) count(ctx context.Context, q *question, d decision) error {
	young := g.losses.allYoung()
	// Twice as much, so that the next removals need no count of their own.
	counts, err := g.opts.Slave.Count(ctx, []string{""}, 2*d.need+young)
	if err != nil {
		return err
	}
	q.counted = d.need
	g.mu.Lock()
	defer g.mu.Unlock()
	g.had = max(g.had, counts[0]+d.before-young)
	return nil
}
