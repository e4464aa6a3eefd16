package crawler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"georep/crawler/plan"
	"georep/crawler/share"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Doing says what a crawl would do with an entry.
type Doing string

// What a crawl would do.
const (
	Make   Doing = "make"
	Modify Doing = "change"
	Move   Doing = "move"
	Link   Doing = "link"
	Remove Doing = "remove"
)

// Change is something that a crawl would do.
type Change struct {
	Do      Doing
	Path    string
	From    string // of a move or a link: the slave's name for it
	Kind    slave.Kind
	Props   []string // what of it changes, as Difference has it; also of what moves
	Bytes   int64    // of content to be sent, at most
	Entries int64    // with all that lies in it, where it is made, moved or removed as a whole; 1 else
}

// Forecast is what a crawl would do in all.
type Forecast struct {
	Made, Changed, Moved, Linked, Removed int64 // Removed counts entries; what was told of a directory counts with all in it
	Bytes                                 int64
	NoMoves                               bool // too much left its place for moves to be found: they are told as made and removed
}

// DryRunOptions say how to look.
type DryRunOptions struct {
	Slave slave.Reader // open aside, and the caller's to close; Options.Tree is not used
	// Since is the time from which on changes of the master may lack their marks, zero for always; those are found by ctime, which
	// takes a look at everything. Marked says that there are none, so that what is in step by its stamp is passed over.
	Since  time.Time
	Marked bool
	// OnlyRemoved tells of what would be removed, and made, alone: nothing is read, and what changes or moves is not told.
	OnlyRemoved bool
	// Found is told each change, from one goroutine.
	Found func(Change)
}

// dryRun compares both trees by the rules of a crawl, and changes neither. It goes down both at once. What left its place on the
// slave is remembered with all in it (gone), and what the slave lacks waits until all of that is known (later): it may have moved.
type dryRun struct {
	ctx   context.Context
	o     *Options
	d     *DryRunOptions
	m     *view
	since xtime.Time

	todo    []dryTask
	gone    map[string]*leftPlace    // by path, with all that lies in them
	stale   map[string]bool          // those of them that have no counterpart
	where   map[xtime.GFID]leftPlace // inodes that left their places, or that others take
	holding map[string]bool          // directories that stay, for what is left out in them
	taken   map[string]bool          // places that something was moved from
	later   []lacking
	bare    bool                  // the slave has nothing, so nothing can have moved
	names   map[xtime.GFID]string // of inodes with several names: one that the slave has, or will have
	check   []lacking
	sum     Forecast
}

// dryTask is a directory to be looked at: on both sides, or, with only one path, on one.
type dryTask struct {
	there, here string // on the slave and on the master
	onSlave     bool   // only there: it is gone
	onMaster    bool   // only here: it is made
	part, parts uint32
	state       *slave.DirState
}

// leftPlace is an entry of the slave that has nothing of its own on the master under its name.
type leftPlace struct {
	path string
	kind slave.Kind
	st   slave.EntryState
}

// lacking is an entry of the master that is not under its name on the slave. there is where the slave has what it is compared with.
type lacking struct {
	path  string
	there string
	e     plan.Entry
	state *slave.EntryState // what stands there; nil: nothing
	do    Doing
}

// Bounds of what is in memory.
const (
	maxGone  = 200_000
	dryDirs  = 64
	maxCheck = 256
)

// DryRun tells what a crawl would do now, and does nothing. The slave is only read, so it may be open aside.
func DryRun(ctx context.Context, o Options, d DryRunOptions) (Forecast, error) {
	m, err := newView(&o, d.Slave)
	if err != nil {
		return Forecast{}, err
	}
	w := &dryRun{ctx: ctx, o: &o, d: &d, m: m, since: xtime.FromTime(d.Since.Add(-source.QuietTime)), gone: map[string]*leftPlace{}, stale: map[string]bool{},
		where: map[xtime.GFID]leftPlace{}, taken: map[string]bool{}, holding: map[string]bool{}, names: map[xtime.GFID]string{}}
	if d.Since.IsZero() {
		w.since = 0
	}
	if err = w.run(); err == nil {
		err = w.removed()
	}
	if err == nil {
		err = m.Intact() // else what was not found is told as removed
	}
	return w.sum, err
}

func (w *dryRun) run() error {
	if err := w.root(); err != nil {
		return err
	}
	for {
		for len(w.todo) > 0 {
			if err := w.some(); err != nil {
				return err
			}
		}
		again, err := w.resolve()
		if err != nil {
			return err
		}
		if !again && len(w.todo) == 0 {
			return w.flush()
		}
	}
}

// root compares the roots themselves.
func (w *dryRun) root() error {
	d, err := w.m.OpenDir("")
	if err != nil {
		return source.RootError(w.o.Path, err)
	}
	defer d.Close()
	st, err := d.Stat("")
	if err != nil {
		return source.RootError(w.o.Path, err)
	}
	w.todo = append(w.todo, dryTask{})
	w.examine(lacking{e: plan.Entry{Kind: slave.Dir, Stat: st}, do: Modify})
	return nil
}

// some surveys a few directories in one request, and compares them.
func (w *dryRun) some() error {
	k := max(len(w.todo)-dryDirs, 0)
	tasks := append([]dryTask(nil), w.todo[k:]...)
	w.todo = w.todo[:k]
	var queries []slave.Query
	var asked []int
	for i := range tasks {
		if t := &tasks[i]; !t.onMaster {
			queries, asked = append(queries, slave.Query{Path: t.there, Part: t.part, Parts: t.parts}), append(asked, i)
		}
	}
	if len(queries) > 0 {
		states, err := w.d.Slave.Survey(w.ctx, queries)
		if err != nil {
			return err
		}
		for i := range states {
			tasks[asked[i]].state = &states[i]
		}
	}
	for i := range tasks {
		t := &tasks[i]
		if t.state == nil && !t.onMaster {
			w.todo = append(w.todo, *t) // it did not go into the answer
			continue
		}
		if err := w.look(t); err != nil {
			return err
		}
	}
	return w.ctx.Err()
}

// look compares one directory.
func (w *dryRun) look(t *dryTask) error {
	if t.onSlave {
		return w.leaves(t)
	}
	state := t.state
	if state == nil {
		state = &slave.DirState{}
	}
	if state.Err != nil && !errors.Is(state.Err, fs.ErrNotExist) {
		return fmt.Errorf("survey the slave: %w", state.Err)
	}
	d, err := w.m.OpenDir(t.here)
	if err != nil {
		if vanished(err) {
			return nil
		}
		return fmt.Errorf("open the master's %q: %w", t.here, err)
	}
	defer d.Close()
	names, total, err := w.m.List(d, t.part, t.parts, t.here == "")
	if err != nil {
		return fmt.Errorf("list the master's %q: %w", t.here, err)
	}
	if state.Truncated || names == nil && total > 0 {
		return w.inParts(t, max(state.Total, int64(total)))
	}
	if t.here == "" {
		keepLostAndFound(names, state)
		w.bare = state.Total == 0
	}
	w.entries(t, d, names, state)
	return w.checkSome(maxCheck)
}

// inParts has a large directory looked at in shares.
func (w *dryRun) inParts(t *dryTask, total int64) error {
	list := share.Smaller(slave.Query{Path: t.there, Part: t.part, Parts: t.parts}, total)
	if len(list) == 0 {
		return fmt.Errorf("the slave does not answer for the least part of %q", t.there)
	}
	for _, q := range list {
		share := *t
		share.part, share.parts, share.state = q.Part, q.Parts, nil
		w.todo = append(w.todo, share)
	}
	return nil
}

// entries plans what is in a directory as a crawl does, and notes what that means.
func (w *dryRun) entries(t *dryTask, d *beneath.Dir, names []beneath.Entry, state *slave.DirState) {
	r := w.m.Reader(t.here, d, false)
	covered := map[string]bool{}
	rules, _ := w.m.rulesOf(t.here)
	side := &node{rules: Tagged(w.m.filter, rules, d)}
	leftOut := map[string]bool{}
	var list []plan.Entry
	for _, n := range names {
		if side.early(r, d, n) {
			leftOut[n.Name] = true
			continue
		}
		e, err := r.Entry(n.Name)
		switch {
		case errors.Is(err, source.ErrCovered):
			covered[n.Name] = true
		case err == nil && leavesOut(side.rules, &e):
			leftOut[n.Name] = true
		case err == nil:
			list = append(list, w.unmarked(e))
		}
	}
	w.m.leaveAlone(side, leftOut, list, state)
	byName := make(map[string]*slave.EntryState, len(state.Entries))
	there := state.Entries[:0:0]
	for _, s := range state.Entries {
		if !covered[s.Name] && !(t.here == "" && s.Name == slave.Reserved) {
			there = append(there, s)
		}
	}
	for i := range there {
		byName[there[i].Name] = &there[i]
	}
	p := plan.Compute(list, there, plan.Options{Namespace: w.d.Slave.Info().Namespace, Quick: w.o.Quick,
		Wary: state.Record.Xtime < w.o.FilterSince})
	planned := w.planned(t, &p)
	for i := range list {
		e, s := &list[i], byName[list[i].Name]
		if planned[e.Name] || s == nil {
			continue
		}
		if e.Kind == slave.Dir && !w.d.Marked {
			w.todo = append(w.todo, dryTask{there: join(t.there, e.Name), here: join(t.here, e.Name)})
		}
		w.name(e, join(t.here, e.Name))
	}
}

// unmarked has an entry whose last change may lack its mark be as new as its ctime.
func (w *dryRun) unmarked(e plan.Entry) plan.Entry {
	if c := xtime.FromTime(source.UnixTime(e.Stat.Ctime)); !w.d.Marked && c > w.since {
		e.Record.Xtime = c
	}
	return e
}

// name remembers one name of an inode that has several.
func (w *dryRun) name(e *plan.Entry, path string) {
	if e.Kind != slave.Dir && e.Stat.Nlink > 1 && len(w.names) < maxGone {
		w.names[e.Record.GFID] = path
	}
}

// planned notes what the plan of a directory says, and tells which names it is about.
func (w *dryRun) planned(t *dryTask, p *plan.Plan) map[string]bool {
	about := map[string]bool{}
	for i := range p.Stale {
		w.leave(join(t.there, p.Stale[i].Name), &p.Stale[i])
	}
	for _, it := range p.Items {
		about[it.Entry.Name] = true
		l := lacking{path: join(t.here, it.Entry.Name), there: join(t.there, it.Entry.Name), e: it.Entry, state: it.State}
		w.lack(l, it.ParkFirst)
	}
	for _, c := range p.Children {
		about[c.Entry.Name] = true
		l := lacking{path: join(t.here, c.Entry.Name), there: join(t.there, c.Entry.Name), e: c.Entry, state: c.State}
		if c.Make {
			w.lack(l, c.ParkFirst != nil)
			continue
		}
		l.do = Modify
		w.examine(l)
		w.todo = append(w.todo, dryTask{there: l.there, here: l.path})
	}
	return about
}

// lack notes an entry that is to be brought over. What has to make way for it leaves.
func (w *dryRun) lack(l lacking, makesWay bool) {
	switch {
	case w.bare:
		w.make(l)
		return
	case makesWay:
		w.leave(l.there, l.state)
		l.state = nil
	case l.state != nil && (l.state.Record.GFID == l.e.Record.GFID):
		l.do = Modify
		w.name(&l.e, l.path)
		w.examine(l)
		return
	case l.state != nil:
		w.place(l.there, l.state)
	}
	w.later = append(w.later, l)
}

func (w *dryRun) tell(c Change) {
	switch c.Entries = max(c.Entries, 1); c.Do {
	case Make:
		w.sum.Made++
	case Modify:
		w.sum.Changed++
	case Move:
		w.sum.Moved++
	case Link:
		w.sum.Linked++
	case Remove:
		w.sum.Removed += c.Entries
	}
	w.sum.Bytes += c.Bytes
	w.d.Found(c)
}
