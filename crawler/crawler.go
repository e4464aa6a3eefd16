package crawler

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"georep/crawler/limit"
	"georep/crawler/retry"
	"georep/crawler/source"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/delta"
)

// visitors is how many directories, or chunks of them, are surveyed and planned at once.
const visitors = 8

// Crawler crawls one master for one slave. One Pass runs at a time; everything else may be called meanwhile.
type Crawler struct {
	scanned  func(dir string) // for tests: called after a search for names has listed a directory
	left     func(dir string) // the same: called when what a visit kept was sent
	opts     Options
	failures *retry.Failures
	pass     uint32
	groups   atomic.Bool // the slave may have inodes that lack names
	parked   atomic.Int64
	distance distance
	blocks   *semaphore.Weighted // of signatures (sendDeltas)
	losses   *limit.Losses       // by how much the slave has shrunk lately, over all passes
	free     int64               // entries that may always be removed
	covered  sync.Map            // paths of which the log says that something is mounted there
	kept     sync.Map            // the same of directories that stay on the slave
	large    int64               // bytes of a basis of which strong sums are asked for first
	names    names
	joined   joined
	heavy    int64 // files of as many bytes are worked on beside the crawls
	debounce debounce
	// groupsAtOnce is of how many inodes the names are checked at a time.
	groupsAtOnce int
	bulk         bulk
	deferrals    deferrals
	taken        *hintRange // hints that were looked at, for the next Pass
	origins      origins
	leftCount    atomic.Int64 // names that were left behind since the root was stamped (mayLeave)
}

// New makes a Crawler. It does nothing yet.
func New(opts Options) *Crawler {
	if opts.Counters == nil {
		opts.Counters = &Counters{}
	}
	free := opts.FreeDeletes
	if opts.MaxDelete == 0 {
		free = 0
	}
	c := &Crawler{opts: opts, failures: retry.New(opts.RetryMax), free: free, large: strongFirst, heavy: bulkBytes, groupsAtOnce: groupsAtOnce,
		names:  usualNames(),
		blocks: semaphore.NewWeighted(delta.MaxBlocks), losses: limit.NewLosses(time.Now)}
	c.deferrals.running = c.bulk.running
	c.debounce = debounce{quietPeriod: opts.QuietPeriod, max: opts.MaxDelay, now: time.Now}
	c.groups.Store(!opts.Tree.Info().LinksClean)
	opts.Counters.underPolicy(opts.Tree.Info().Limits.Policy)
	c.parked.Store(opts.Tree.Info().Parked)
	return c
}

// State is where a slave stands: the xtime of the master's root and the slave's stime, as read at the same time.
type State struct {
	Xtime xtime.Time
	Stime xtime.Time
	GFID  xtime.GFID // of the master's root
	Same  bool       // the slave's root is on record as this master's root
	Empty bool       // the slave's root holds nothing
	Dir   slave.DirState
}

// InStep tells whether the slave durably has everything up to Xtime.
func (s *State) InStep() bool { return s.Same && s.Stime == s.Xtime }

// Look proves that the master is there, reads its root's xtime and surveys the slave's root: one directory, one round
// trip. It tells whether a Pass is needed.
func (c *Crawler) Look(ctx context.Context) (State, error) {
	s, err := c.Master()
	if err != nil {
		return s, err
	}
	states, err := c.opts.Tree.Survey(ctx, []slave.Query{{}})
	if err != nil {
		return s, err
	}
	c.opts.Counters.Surveyed.Add(1)
	if err := states[0].Err; err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("survey the slave's root: %w", err)
	}
	s.Dir = states[0]
	if s.Stime = s.Dir.Record.Xtime; s.Stime < c.opts.FilterSince {
		s.Stime = 0 // it tells of what another filter left in
	}
	s.Same = s.Dir.Record.GFID == s.GFID
	s.Empty = s.Dir.Total == 0
	return s, nil
}

// Master is the half of Look that needs no slave: it proves that the master is there and reads its root's xtime.
func (c *Crawler) Master() (State, error) {
	m, err := newView(&c.opts, c.opts.Tree)
	if err != nil {
		return State{}, err
	}
	if err := m.Check(); err != nil {
		return State{}, err
	}
	at, g, err := m.Head()
	return State{Xtime: at, GFID: g}, err
}

// Outcome is how a Pass ended.
type Outcome struct {
	// Stime is the slave's new stime; 0 where something failed and the root could not be stamped.
	Stime xtime.Time
	// Hinted tells that hints told all that changed in the root. Stime is then the xtime up to which they reach, which may
	// be older than that of the master's root.
	Hinted bool
	// Waiting tells that the slave has everything up to Reached but for files that keep changing. Stime is then older, and 0
	// where the slave had none.
	Waiting      bool
	CoveredXtime xtime.Time
	// Met tells that all that was marked up to Reached has been come to, also where Stime is 0 because the names of some inodes
	// could not be settled: what moved until then is in its new place.
	Met bool
}

// Pass crawls once from the root. An error is the session's: the connection, the master that is not there, or a purge
// that needs the operator's word. Entries that failed are in Failures; then Outcome.Stime is 0.
func (c *Crawler) Pass(ctx context.Context) (Outcome, error) { return c.PassAfter(ctx, nil) }

// PassAfter is Pass that saves the round trip for the slave's root, by what a Look just found there. Nothing may have been
// done to the slave since that Look; nil stands for none. A State is good for one Pass.
func (c *Crawler) PassAfter(ctx context.Context, look *State) (Outcome, error) {
	m, err := newView(&c.opts, c.opts.Tree)
	if err != nil {
		return Outcome{}, err
	}
	if err := m.Check(); err != nil {
		return Outcome{}, err
	}
	c.pass++
	c.failures.BeginPass()
	w, err := newCrawl(ctx, c, m, look)
	if err != nil {
		return Outcome{}, err
	}
	c.opts.Counters.Crawls.Add(1)
	err = w.crawlAll()
	if err == nil || errors.Is(err, source.ErrNotMaster) || limit.Refused(err) != nil || w.refused != nil {
		// What seemed to be gone is the least of it then, and nothing that the operator should approve.
		if broken := m.Intact(); broken != nil {
			return Outcome{}, broken
		}
	}
	if err != nil {
		return Outcome{}, err
	}
	c.failures.EndPass(c.pass)
	if w.refused != nil {
		return Outcome{}, w.refused
	}
	if w.stime != 0 && c.opts.Approvals != nil {
		c.opts.Approvals.Done()
	}
	return Outcome{Stime: w.stime, Hinted: w.root.hint != nil, CoveredXtime: w.coveredXtime, Waiting: w.waiting, Met: w.met}, nil
}

// Clean deletes what was parked more than keep ago. What the master had moved until then must be in its new place.
func (c *Crawler) Clean(ctx context.Context, keep time.Duration) error {
	// What was sent ahead, and waits for its crawl, would go with what is parked.
	if c.parked.Load() == 0 || c.bulk.busy(!c.deferrals.none()) {
		return nil
	}
	if err := c.opts.Tree.Clean(ctx, int64(keep/time.Second)); err != nil {
		return err
	}
	if keep == 0 {
		c.parked.Store(0)
	}
	return nil
}

// Failures lists up to max entries that could not be brought over, and how many there are.
func (c *Crawler) Failures(max int) ([]retry.Failure, int) { return c.failures.List(max) }

// NextRetry is when something that failed, or that waits because it keeps changing, is due; zero if there is nothing.
func (c *Crawler) NextRetry() time.Time {
	failed, waits := c.failures.NextRetry(), c.deferrals.next()
	if failed.IsZero() || !waits.IsZero() && waits.Before(failed) {
		return waits
	}
	return failed
}

// Waiting lists up to most files that wait because they keep changing, counts them all, and adds up their sizes.
func (c *Crawler) Waiting(most int) (list []Waiting, total int, bytes int64) {
	return c.deferrals.waiting(most)
}

// absorb takes what hints tell, and gives the xtime that they reach where all of that only concerns files that wait, so
// that there is nothing to do. What it has taken is for the next Pass otherwise.
func (c *Crawler) absorb() (reached xtime.Time, ok bool) {
	if due := c.deferrals.next(); !due.IsZero() && !c.debounce.now().Before(due) {
		return 0, false // what comes now must not put that off
	}
	if c.taken == nil {
		c.taken = c.opts.Hints.drain()
	}
	if c.taken == nil || !c.deferrals.absorb(c.taken, &c.debounce) {
		return 0, false
	}
	reached, c.taken = c.taken.end, nil
	return reached, true
}

// take gives what a Pass goes by: what hints tell, and what is due of what was put off. Where there is news of which no hint tells,
// the Pass goes from directory to directory, and is reminded on its way: what is due must not come before it again and again.
func (c *Crawler) take(root xtime.GFID, at xtime.Time) *hintRange {
	c.deferrals.begin()
	r := c.taken
	if c.taken = nil; r == nil {
		r = c.opts.Hints.drain()
	}
	if (r == nil || len(r.dirs) == 0) && c.deferrals.untoldNews(root, at, c.opts.Hints.following()) {
		return nil
	}
	return c.deferrals.remind(r, root, c.debounce.now(), c.names)
}

// Full is a failure that shows that the slave as a whole takes nothing more, or nil.
func (c *Crawler) Full() error { return c.failures.Full() }

// crawlAll starts the visitors and the shipper and waits until the root is finished or the session has failed.
func (w *crawl) crawlAll() error {
	defer w.pending.clear()
	defer w.cancel(nil)
	if err := w.foresee(); err != nil {
		return err
	}
	w.push(w.root)
	w.tasks.Go(func() error { w.ship.run(w.ctx); return nil })
	for range visitors {
		w.tasks.Go(func() error { w.visitLoop(); return nil })
	}
	select {
	case <-w.done:
		w.cancel(errPassOver)
	case <-w.ctx.Done():
	}
	w.stack.close()
	w.tasks.Wait()
	w.release()
	if err := context.Cause(w.ctx); !errors.Is(err, errPassOver) {
		return err
	}
	return nil
}
