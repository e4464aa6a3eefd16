package crawler

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// This file leaves out what the session's filter says. What is left out counts as not there on the master; on the slave it is
// left alone, unless the filter deletes it. Where the master has something of a name, that decides; where it has nothing,
// the slave's own entry does, by patterns alone: the copy of a file that grew too large goes when the file does.
//
// A stamp says that the slave has everything that is not left out, so it is worth nothing under another filter. Since counts as a
// volume mark for directories: whatever was stamped under an earlier filter is older (Options.FilterSince), and each directory
// is listed once. Records of files say what is in them, whatever the filter is: nothing is read again but what somebody seems to have
// changed on the slave (plan.Options.Wary).
//
// A directory that moves takes its stamps along. Patterns with a slash may leave out other things where it is now, so it
// is moved only where they do not (mayMove).

// sizeOf is the size that a filter goes by.
func sizeOf(k slave.Kind, size int64) int64 {
	if k != slave.File {
		return -1
	}
	return size
}

// LeavesOut tells whether an entry of the master's directory that rules are for is left out. leavesOut tells the same of one that
// was read, and leavesOutState of one that the slave alone has.
func LeavesOut(rules *filter.Dir, name string, st *beneath.Stat) bool {
	k := slave.KindOf(st.Mode)
	return rules.Excludes(name, k == slave.Dir, sizeOf(k, st.Size))
}

func leavesOut(d *filter.Dir, e *plan.Entry) bool {
	return d.Excludes(e.Name, e.Kind == slave.Dir, sizeOf(e.Kind, e.Stat.Size))
}

func leavesOutState(d *filter.Dir, s *slave.EntryState) bool {
	return d.Excludes(s.Name, s.Kind == slave.Dir, -1)
}

// Tagged is the filter of an opened directory of the master: with its Tag, where it has one.
func Tagged(f *filter.Filter, rules *filter.Dir, d *beneath.Dir) *filter.Dir {
	if f.Caches() && hasTag(d) {
		return rules.Tagged()
	}
	return rules
}

// hasTag tells whether a directory says of itself that it is a cache. A tag that cannot be read is none.
func hasTag(d *beneath.Dir) bool {
	file, err := d.OpenFile(filter.Tag, unix.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return false
	}
	text := make([]byte, len(filter.Signature))
	_, err = io.ReadFull(io.NewSectionReader(file, 0, int64(len(text))), text)
	return err == nil && string(text) == filter.Signature
}

// rulesOf is the filter for the entries of the directory at path, without the Tag that it may have. ok is false where that is left
// out itself.
func (m *view) rulesOf(path string) (rules *filter.Dir, ok bool) {
	rules = m.filter.Root()
	for at := ""; at != path && m.filter != nil; {
		name, _, _ := strings.Cut(strings.TrimPrefix(path[len(at):], "/"), "/")
		if m.within(at, rules).Excludes(name, true, -1) {
			return nil, false
		}
		at, rules = join(at, name), rules.Down(name)
	}
	return rules, true
}

// within adds what a Tag says in the directory at path, if there is one.
func (m *view) within(path string, rules *filter.Dir) *filter.Dir {
	if rules == nil || !m.filter.Caches() {
		return rules
	}
	d, err := m.OpenPath(path)
	if err != nil {
		return rules
	}
	defer d.Close()
	return Tagged(m.filter, rules, d)
}

// leaves tells whether the entry at path, as the master has it, is left out.
func (m *view) leaves(path string, e *plan.Entry) bool {
	if m.filter == nil || path == "" {
		return false
	}
	dir, _ := beneath.Split(path)
	rules, ok := m.rulesOf(dir)
	return !ok || leavesOut(m.within(dir, rules), e)
}

// leavesEntry tells whether the filter leaves out a name of an opened directory of the master, as it is now.
func leavesEntry(rules *filter.Dir, d *beneath.Dir, name string) bool {
	if rules == nil {
		return false
	}
	st, err := d.Stat(name)
	return err == nil && LeavesOut(rules, name, &st)
}

// early tells of a listed entry that it is left out, where its type is enough to know, or the entry has not been asked about yet
// since a hint told of it.
func (n *node) early(r source.Reader, d *beneath.Dir, e beneath.Entry) bool {
	switch k := slave.Kind(e.Type); {
	case n.rules == nil:
		return false
	case k == slave.Unknown:
		return !r.Covered(e.Name) && leavesEntry(n.rules, d, e.Name)
	default:
		return n.rules.Excludes(e.Name, k == slave.Dir, -1)
	}
}

// leaveAlone takes out of the slave's state what is left out: of names, what the master has there is. mine are the others.
func (m *view) leaveAlone(n *node, names map[string]bool, mine []plan.Entry, state *slave.DirState) {
	if n.rules == nil || m.filter.Deletes() {
		return
	}
	var have map[string]bool
	kept := state.Entries[:0]
	for i := range state.Entries {
		s := &state.Entries[i]
		alone := names[s.Name]
		if !alone && leavesOutState(n.rules, s) {
			if have == nil {
				have = namesOf(mine)
			}
			alone = !have[s.Name]
		}
		if !alone {
			kept = append(kept, *s)
		}
	}
	state.Entries = kept
}

func namesOf(entries []plan.Entry) map[string]bool {
	out := make(map[string]bool, len(entries))
	for i := range entries {
		out[entries[i].Name] = true
	}
	return out
}

// ownOf counts the entries of the slave's state that are not the replica's.
func (w *crawl) ownOf(n *node, state *slave.DirState) (own int) {
	if n.rules == nil || w.m.filter.Deletes() {
		return 0
	}
	for i := range state.Entries {
		if leavesOutState(n.rules, &state.Entries[i]) {
			own++
		}
	}
	return own
}

// isGone tells whether what the slave has under a name is stale now. yet is true where the master has something there by now that
// is yet to be brought over.
func (w *crawl) isGone(n *node, d *directory, name string) (stale, yet bool) {
	st, err := d.Dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return true, false
	}
	if err == nil && LeavesOut(n.rules, name, &st) {
		return w.m.filter.Deletes(), false
	}
	return false, true
}

// mayTake tells whether an inode may be taken from where the slave has it in the tree: what is left out stays where it is.
func (w *crawl) mayTake(from string, e *plan.Entry) bool {
	if w.m.filter == nil || w.m.filter.Deletes() || from == "" {
		return true
	}
	dir, name := beneath.Split(from)
	rules, ok := w.m.rulesOf(dir)
	return ok && !w.m.within(dir, rules).Excludes(name, e.Kind == slave.Dir, -1)
}

// mayMove tells whether an entry may take its stamps along to a path, from where it stood, or the slave has it parked: the filter
// leaves out the same in both places.
func (w *crawl) mayMove(e *newcomer, f *slave.Found, stood, to string) bool {
	if e.Kind != slave.Dir || !w.m.filter.Paths() {
		return true
	}
	from, known := stood, stood != ""
	if !known {
		from, known = w.c.wasAt(e.Record.GFID, f)
	}
	root := w.m.filter.Root()
	return known && root.Walk(from).Same(root.Walk(to))
}

// origins remembers from where directories were parked, as long as patterns with a slash make that count.
type origins struct {
	mu sync.Mutex
	of map[xtime.GFID]string
}

// maxOrigins bounds what is remembered of parked directories.
const maxOrigins = 100_000

// parkedFrom notes where a parked directory was.
func (c *Crawler) parkedFrom(op *slave.Op, r slave.Result) {
	if !c.opts.Filter.Paths() || op.Kind != slave.OpPark || op.Entry != slave.Dir || !r.Parked {
		return
	}
	c.origins.mu.Lock()
	defer c.origins.mu.Unlock()
	if c.origins.of == nil || len(c.origins.of) >= maxOrigins {
		c.origins.of = map[xtime.GFID]string{}
	}
	c.origins.of[op.Expect] = op.Path
}

// wasAt is where a directory was that the slave has in the park, or in the tree.
func (c *Crawler) wasAt(g xtime.GFID, f *slave.Found) (path string, known bool) {
	if !f.Parked {
		return f.Path, f.Path != ""
	}
	top, rest, inside := strings.Cut(f.Path, "/")
	if inside {
		top, _, _ = strings.Cut(top, ".") // one of several of that GFID
		var err error
		if g, err = xtime.ParseGFID(top); err != nil {
			return "", false
		}
	}
	c.origins.mu.Lock()
	defer c.origins.mu.Unlock()
	if path, known = c.origins.of[g]; inside {
		path = join(path, rest)
	}
	return path, known
}

// dirRules is the filter of the directory that was asked for last.
type dirRules struct {
	path  string
	rules *filter.Dir
	in    bool
	known bool
}

func (r *dirRules) of(m *view, path string) (*filter.Dir, bool) {
	if !r.known || r.path != path {
		r.path, r.known = path, true
		r.rules, r.in = m.rulesOf(path)
		r.rules = m.within(path, r.rules)
	}
	return r.rules, r.in
}

// leaveOut takes out of a verification what the filter leaves out, on both sides.
func (w *verifier) leaveOut(p *pair, last *dirRules) {
	if w.m.filter == nil || p.path == "" {
		return
	}
	dir, name := beneath.Split(p.path)
	rules, in := last.of(w.m, dir)
	out := !in
	switch {
	case out:
	case p.mine != nil:
		out = leavesOut(rules, p.mine)
	case p.theirs != nil:
		out = rules.Excludes(name, p.theirs.Kind == slave.Dir, -1)
	default:
		out = rules.Excludes(name, false, -1) // it cannot be looked at
	}
	if out {
		p.mine, p.theirs, p.unreadable = nil, nil, nil
	}
}
