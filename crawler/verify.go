package crawler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/crawler/share"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// ErrNoEntry means that there is nothing at the path where a Verify was to begin.
var ErrNoEntry = errors.New("is neither on the master nor on the slave")

// Difference is an entry of the slave that is not the master's, though the slave's records say that it should be.
type Difference struct {
	Path  string
	Kinds []string // what differs: content, mode, owner, mtime, xattrs, acl, target, device, link, type, missing, extra, unreadable
}

// VerifySummary is what a Verify found in all.
type VerifySummary struct {
	Entries     int64 // compared
	Bytes       int64 // of contents hashed on the master
	Differences int64
	Lost        int64  // entries that differ only in what the slave's files cannot show
	Policed     int64  // entries that differ only in what the policy of the slave's host changes
	Pending     int64  // entries that differ and that the slave does not claim to have yet
	Policy      string // its keys; "" where it changes nothing
	Unlinked    int64  // inodes with several names of which only the first name could be remembered (see maxInodes)
}

// VerifyOptions say how to verify.
type VerifyOptions struct {
	// Slave is open aside, and has to be a slave.Examiner; it is the caller's to close. Options.Tree is not used.
	Slave slave.Reader
	Path  string // where to begin, "" for the root
	// Only, where it is set, are the entries to compare, in place of Path and without what is below them.
	Only []string
	// Settle returns once every change of the master that happened before its call is marked.
	Settle func(ctx context.Context) error
	// Found is told each difference, from one goroutine at a time.
	Found func(Difference)
	// Waits, if set, is told what is pending in the same way.
	Waits func(path string)
	// Seen, if set, counts what was compared so far; anybody may read it meanwhile.
	Seen *slave.Seen
}

// Bounds of a Verify. What is in memory does not depend on the size of the tree.
const (
	verifiers   = 8       // directories compared at once
	maxSuspects = 1000    // entries that differ at first sight and are looked at again together
	maxInodes   = 1 << 18 // inodes with several names that are remembered
	looks       = 5       // at a suspect, before it counts as pending
	detailed    = 512     // entries examined in one request
)

// Verify compares both trees in full. It is safe while a session
// runs: only what differs in the same way at two looks in a row, while the slave's records claim that it has what the
// master had at the first of them, is a difference (see claimed).
func Verify(ctx context.Context, o Options, v VerifyOptions) (VerifySummary, error) {
	examiner, ok := v.Slave.(slave.Examiner)
	if !ok {
		return VerifySummary{}, errors.New("a slave by SFTP cannot be verified: nothing of georep's runs there to hash its files; georep restore copies it to a " +
			"directory here, where it can be compared")
	}
	m, err := newView(&o, v.Slave)
	if err != nil {
		return VerifySummary{}, err
	}
	if err := m.Check(); err != nil {
		return VerifySummary{}, err
	}
	w := &verifier{o: &o, v: &v, m: m, slave: examiner, slots: make(chan struct{}, verifiers), links: newVerifiedLinks(v.Slave.Info().Namespace)}
	w.summary.Policy = v.Slave.Info().Limits.Policy.String()
	w.tasks, w.ctx = errgroup.WithContext(ctx)
	if v.Only == nil {
		w.tasks.Go(w.begin)
	} else {
		w.tasks.Go(w.only)
	}
	if err := w.tasks.Wait(); err != nil {
		return w.summary, err
	}
	w.ctx = ctx
	if err := w.judge(w.suspects); err != nil {
		return w.summary, err
	}
	// A master that was unmounted meanwhile has proven nothing, and neither has one of which a part was missing.
	if err := m.Intact(); err != nil {
		return w.summary, err
	}
	return w.summary, m.Check()
}

// verifier is one Verify.
type verifier struct {
	o     *Options
	v     *VerifyOptions
	m     *view
	slave slave.Examiner
	tasks *errgroup.Group
	ctx   context.Context
	slots chan struct{}
	links *verifiedLinks

	judging  sync.Mutex
	mu       sync.Mutex // guards what follows
	suspects []suspect
	summary  VerifySummary
}

// begin compares the entry at the beginning and what is below it.
func (w *verifier) begin() error {
	here, err := w.firstLook([]string{w.v.Path})
	if err != nil {
		return err
	}
	p := here[0]
	if p.mine == nil && p.theirs == nil && p.unreadable == nil {
		return fmt.Errorf("%q %w", w.v.Path, ErrNoEntry)
	}
	w.first(p)
	if p.bothDirs() {
		return w.directory(w.v.Path)
	}
	return nil
}

// only compares the entries that were asked for.
func (w *verifier) only() error {
	for list := w.v.Only; len(list) > 0; list = list[min(len(list), detailed):] {
		pairs, err := w.firstLook(list[:min(len(list), detailed)])
		if err != nil {
			return err
		}
		for _, p := range pairs {
			w.first(p)
		}
		if err := w.flush(); err != nil {
			return err
		}
	}
	return nil
}

// directory compares the entries of a directory that is one on both sides, part by part, so that the memory is bounded,
// and goes down.
func (w *verifier) directory(path string) error {
	base := uint32(1)
	for part, parts := uint32(0), base; ; {
		names, total, err := w.names(path, part, parts)
		if err != nil {
			return err
		}
		switch tooMany := names == nil && total > 0; {
		case tooMany && parts >= share.Max:
			return fmt.Errorf("verify %q: the slave does not answer for the least part of it", path)
		case tooMany && parts == 1:
			parts = share.Parts(total)
			base = parts
			continue
		case tooMany:
			parts *= 2
			continue
		}
		if err := w.entries(path, names); err != nil {
			return err
		}
		if part+1 == parts {
			return nil
		}
		part, parts = share.Next(part, parts, base)
	}
}

// names gives the names in a part of a directory, on either side, none if that are too many for one part, and how
// many there are. A directory that vanishes has none: its parent tells.
func (w *verifier) names(path string, part, parts uint32) ([]string, int64, error) {
	states, err := w.v.Slave.Survey(w.ctx, []slave.Query{{Path: path, Part: part, Parts: parts}})
	if err != nil {
		return nil, 0, err
	}
	state := &states[0]
	if state.Err != nil && !vanished(state.Err) {
		w.unreadable(path)
		return nil, 0, nil
	}
	d, err := w.m.OpenDir(path)
	if err != nil {
		if !vanished(err) && !errors.Is(err, unix.EXDEV) {
			w.unreadable(path)
		}
		return nil, 0, nil
	}
	defer d.Close()
	mine, total, err := w.m.List(d, part, parts, path == "")
	if err != nil {
		return nil, 0, fmt.Errorf("list the master's %q: %w", path, err)
	}
	all := max(int64(total), state.Total)
	if state.Truncated || mine == nil && total > slave.MaxEntries {
		return nil, max(all, 1), nil
	}
	if path == "" {
		keepLostAndFound(mine, state)
	}
	return union(mine, state.Entries), all, nil
}

// unreadable reports what cannot be read, or listed, on one side: it was not compared, nor what is in it.
func (w *verifier) unreadable(path string) {
	w.judging.Lock()
	defer w.judging.Unlock()
	w.mu.Lock()
	w.summary.Differences++
	w.mu.Unlock()
	w.v.Found(Difference{Path: path, Kinds: []string{"unreadable"}})
}

func union(mine []beneath.Entry, theirs []slave.EntryState) []string {
	seen := make(map[string]struct{}, len(mine))
	names := make([]string, 0, len(mine))
	for _, e := range mine {
		seen[e.Name] = struct{}{}
		names = append(names, e.Name)
	}
	for i := range theirs {
		if _, ok := seen[theirs[i].Name]; !ok {
			names = append(names, theirs[i].Name)
		}
	}
	return names
}

// entries compares some entries of a directory, and then goes down into those that are directories on both sides. Meanwhile no
// names are kept that only the slave has.
func (w *verifier) entries(dir string, names []string) error {
	var dirs []string
	for len(names) > 0 {
		k := min(len(names), detailed)
		paths := make([]string, k)
		for i, name := range names[:k] {
			paths[i] = join(dir, name)
		}
		names = names[k:]
		pairs, err := w.firstLook(paths)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			w.first(p)
		}
		if err := w.flush(); err != nil {
			return err
		}
		for _, p := range pairs {
			if p.bothDirs() {
				dirs = append(dirs, p.path)
			}
		}
	}
	for _, path := range dirs {
		if err := w.down(path); err != nil {
			return err
		}
	}
	return nil
}

// down goes into a directory, on a goroutine of its own if there is one to be had.
func (w *verifier) down(path string) error {
	select {
	case w.slots <- struct{}{}:
		w.tasks.Go(func() error {
			defer func() { <-w.slots }()
			return w.directory(path)
		})
		return nil
	default:
		return w.directory(path)
	}
}

// firstLook looks at entries, and once more at each that could not be read: it may be a directory, and nothing goes down
// into it later.
func (w *verifier) firstLook(paths []string) ([]*pair, error) {
	pairs, err := w.pair(paths)
	if err != nil {
		return nil, err
	}
	for i, p := range pairs {
		if p.unreadable == nil {
			continue
		}
		again, err := w.pair([]string{p.path})
		if err != nil {
			return nil, err
		}
		pairs[i] = again[0]
	}
	return pairs, nil
}

// first notes an entry that was looked at for the first time.
func (w *verifier) first(p *pair) {
	if p.unreadable != nil {
		w.unreadable(p.path)
		return
	}
	other := w.links.meet(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.mine == nil && p.theirs == nil {
		return // it vanished on both sides
	}
	w.summary.Entries++
	w.v.Seen.Add(1, 0)
	switch {
	case len(p.kinds) > 0:
	case len(p.policy) > 0:
		w.summary.Policed++
	case len(p.lost) > 0:
		w.summary.Lost++
	}
	if other != "" || len(p.kinds) > 0 {
		w.suspects = append(w.suspects, suspect{path: p.path, other: other})
	}
}

// flush judges the suspects once there are many.
func (w *verifier) flush() error {
	w.mu.Lock()
	if len(w.suspects) < maxSuspects {
		w.mu.Unlock()
		return nil
	}
	list := w.suspects
	w.suspects = nil
	w.mu.Unlock()
	return w.judge(list)
}

// vanished tells that there is no such entry, or none any more.
func vanished(err error) bool { return errors.Is(err, fs.ErrNotExist) || source.Gone(err) }

// parentOf is the path of the directory of an entry; the root's is its own.
func parentOf(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// verifiedLinks remembers inodes with several names. It is safe for concurrent use.
type verifiedLinks struct {
	record xtime.Namespace // of the slave: names of what can carry no record there are not kept together
	mu     sync.Mutex
	inodes map[xtime.GFID]linked // of the master
	theirs map[uint64]xtime.GFID // which of them an inode of the slave is
	missed int64
}

type linked struct {
	ino  uint64
	path string
}

func newVerifiedLinks(record xtime.Namespace) *verifiedLinks {
	return &verifiedLinks{record: record, inodes: map[xtime.GFID]linked{}, theirs: map[uint64]xtime.GFID{}}
}

// meet notes the inodes of an entry, and returns the path of another name that does not agree.
func (l *verifiedLinks) meet(p *pair) (other string) {
	if p.mine == nil || p.theirs == nil || p.mine.Kind == slave.Dir || !p.mine.Kind.CarriesRecord(l.record) ||
		p.mine.Stat.Nlink < 2 && p.theirs.Nlink < 2 {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := p.mine.Record.GFID
	if known, ok := l.inodes[g]; ok {
		if known.ino != p.theirs.Ino {
			return known.path
		}
		return ""
	}
	if known, ok := l.theirs[p.theirs.Ino]; ok && known != g {
		return l.inodes[known].path
	}
	if len(l.inodes) == maxInodes {
		l.missed++
		return ""
	}
	l.inodes[g], l.theirs[p.theirs.Ino] = linked{p.theirs.Ino, p.path}, g
	return ""
}
