package crawler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"georep/crawler/limit"
	"georep/crawler/retry"
	"georep/crawler/source"
	"georep/marker/xtime"
	"georep/slave"
)

// Events is how Follow tells what goes on. All of them must be set; they are called from one goroutine at a time.
type Events struct {
	// Ready is called once, when the slave has been looked at for the first time.
	Ready func()
	// Progress is called a few times a second.
	Progress func(Progress)
	// Trouble is called when replication as a whole stands still although the connection holds (no master, a full slave,
	// too much to delete), and with nil when it goes on again.
	Trouble func(error)
}

// Progress is how far a session is.
type Progress struct {
	Crawling   bool
	Stime      xtime.Time // 0 while the slave's root has no stamp
	LastSynced time.Time  // the slave durably has everything the master had then
	InStep     bool
	Behind     time.Time       // when the oldest change was made that the slave lacks; zero where it lacks none
	Following  bool            // by hints, rather than by comparing
	Failures   []retry.Failure // the first of them
	Failed     int             // how many there are
	CaughtUp   bool            // LastSynced passed the start of the session, or came on by more than it does while all goes well
	// Waiting are the first of the files that wait because they keep changing; there are Waits of them, of so many bytes.
	Waiting      []Waiting
	Waits        int
	WaitingBytes int64
}

// FollowOptions say how to follow.
type FollowOptions struct {
	Poll        time.Duration // pause between two looks at the master's root; one system call or few each
	SlowPoll    time.Duration // the same while the slave is in step and hints would tell; 0: Poll
	KeepDeleted time.Duration // how long what was purged stays parked on the slave
	// Heartbeat tells up to when all changes of the master are marked.
	Heartbeat func() time.Time
	Events    Events
}

// Bounds of the pauses in Follow.
const (
	progressEvery = 300 * time.Millisecond
	// idleProgressEvery is the same while the slave is in step: the marker's heartbeat comes no more often.
	idleProgressEvery = time.Second
	catchUp           = 5 * time.Second // by which LastSynced comes on at most while all goes well
	troublePause      = time.Second
	listFailures      = 100
	cleanEvery        = time.Minute
	cleanBusy         = 5 * time.Second  // the least between two looks at what is parked while changes keep coming
	parkedFor         = 2 * time.Second  // more than the seconds of the slave's clock may hide
	parkedLongest     = 10 * time.Minute // and then goes with the next crawl, even if that did not come to everything
	restFirst         = 20 * time.Millisecond
	restLongest       = 10 * time.Second
	hintComes         = 2 * time.Second // how long a mark may wait for its hint
)

// follower is the state of Follow.
type follower struct {
	c            *Crawler
	o            FollowOptions
	began        time.Time
	tried        xtime.Time // up to there the last Pass looked
	coveredXtime xtime.Time // up to there the slave has everything but files that wait
	again        time.Time  // not before this after trouble
	away         bool       // the master's root could not be looked at

	awaited xtime.Time // the root's xtime of which no hint told yet
	since   time.Time  // when that was seen first
	claims  claims
	beat    time.Time // the heartbeat at the last look
	lag     lag

	look    *State        // the first one, for a Pass that follows at once
	undone  time.Duration // the last rest
	ended   time.Time     // when the last crawl did, of this session or before
	cleaned time.Time     // when parked entries were last looked at
	swept   time.Time     // up to when what was parked has been deleted while the session was busy
	met     time.Time     // what was parked before has been looked for by crawls, whether or not they stamped the root
	comes   claim         // the same of the crawl that is next to say so
	doubt   error         // what a crawl left standing that ended at doubted; nil: nothing
	doubted time.Time

	news chan struct{} // there is something to tell at once
	// stirs has a word where there is something to do again.
	stirs chan struct{}
	mu    sync.Mutex // guards what the reporting goroutine reads
	prog  Progress
	bad   bool
}

// Follow keeps the slave in step until ctx ends or the session fails: it looks at the xtime of the master's root, and
// crawls when that differs from the slave's stamp or when something that failed is due again.
func (c *Crawler) Follow(ctx context.Context, o FollowOptions) error {
	now := time.Now()
	f := &follower{c: c, o: o, began: now, ended: now, news: make(chan struct{}, 1), stirs: make(chan struct{}, 1)}
	if err := f.first(ctx); err != nil {
		return err
	}
	defer c.bulk.begin(ctx, c)()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { f.report(stop) })
	defer wg.Wait()
	defer close(stop)
	return f.loop(ctx)
}

// first looks at both roots. It waits for a master that is not there.
func (f *follower) first(ctx context.Context) error {
	for {
		hb := f.o.Heartbeat()
		s, err := f.c.Look(ctx)
		if err == nil {
			f.o.Events.Ready()
			f.looked(&s, hb)
			f.look = &s
			return nil
		}
		if err := f.trouble(ctx, err); err != nil {
			return err
		}
	}
}

// looked notes what the first look found.
func (f *follower) looked(s *State, hb time.Time) {
	f.update(func(p *Progress) {
		p.Stime = s.Stime
		switch p.InStep = s.InStep(); {
		case p.InStep:
			p.LastSynced = later(time.Time{}, hb)
			return
		case s.Same && s.Stime != 0:
			p.LastSynced = later(time.Time{}, s.Stime.Time())
		}
		f.coveredXtime = p.Stime
		// What the slave never had counts as changed when the volume was made.
		p.Behind = f.behind()
	})
}

// behind is when the oldest change was made that the slave lacks, where it lacks any.
func (f *follower) behind() time.Time {
	now := time.Now()
	at := f.lag.behind(now, max(f.coveredXtime, f.c.opts.VolumeMark()), f.c.opts.Hints.after(f.coveredXtime))
	if seen := notBefore(now, f.beat); seen.Before(at) {
		at = seen // the marker has not come to what is as old as that
	}
	return f.orWaits(at)
}

// orWaits is at, or the time since when a file waits, if that is earlier.
func (f *follower) orWaits(at time.Time) time.Time {
	if list, _, _ := f.c.Waiting(1); len(list) > 0 && (at.IsZero() || list[0].Since.Before(at)) {
		return list[0].Since
	}
	return at
}

func (f *follower) loop(ctx context.Context) error {
	for {
		err := f.step(ctx)
		f.look = nil // whatever came of it, the slave may change before the next
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.c.opts.Hints.Wake():
		case <-time.After(f.pause()):
		}
	}
}

// awaits tells whether the hint of the mark that gave the root x is still to be waited for. The marker tells of each mark, or
// that it left one out, and its end ends the connection. So only a marker that stands still makes the wait long, while a crawl
// without the hint lists directories, which may have any size.
func (f *follower) awaits(x xtime.Time) bool {
	if !f.c.opts.Hints.comes(x) {
		return false
	}
	if f.awaited != x {
		f.awaited, f.since = x, time.Now()
	}
	return time.Since(f.since) < hintComes
}

// step looks once and crawls if there is need.
func (f *follower) step(ctx context.Context) error {
	if err := f.c.bulk.failed(); err != nil {
		return err
	}
	hb, now := f.o.Heartbeat(), time.Now()
	f.beat = hb
	s, err := f.c.Master()
	if err != nil {
		f.away = true
		return f.trouble(ctx, err)
	}
	if f.away { // no crawl may follow that would say so
		f.away = false
		f.tell(nil)
	}
	// What is still to be tried again although all is there gets one more crawl, which forgets what it does not meet.
	over := f.c.NextRetry()
	if at := f.progress(); at.InStep && at.Stime == s.Xtime && (over.IsZero() || now.Before(over)) {
		f.c.opts.Hints.settled()
		f.update(func(p *Progress) {
			p.LastSynced, p.Following, p.Behind = later(p.LastSynced, hb), f.c.opts.Hints.following(), f.lag.inStep(now, hb)
		})
		return f.clean(ctx, hb)
	}
	f.claims.note(claim{s.Xtime, hb})
	if s.Xtime == f.tried && now.Before(f.c.NextRetry()) || now.Before(f.again) {
		return f.idle(ctx, s.Xtime, now, hb)
	}
	if f.awaits(s.Xtime) {
		f.update(func(p *Progress) { p.InStep, p.Behind = false, f.behind() })
		return nil
	}
	if reached, ok := f.c.absorb(); ok {
		f.tried, f.coveredXtime = reached, reached
		f.update(func(p *Progress) { p.InStep, p.Behind = false, f.behind() })
		return nil
	}
	// Only here: where no change has come since the last crawl, what is parked goes as the slave is in step.
	if err := f.cleanWhileBusy(ctx); err != nil {
		return err
	}
	f.update(func(p *Progress) {
		p.InStep, p.Crawling, p.Following, p.Behind = false, true, f.c.opts.Hints.following(), f.behind()
	})
	if f.comes == (claim{}) {
		f.comes = claim{s.Xtime, hb}
	}
	out, err := f.c.PassAfter(ctx, f.look)
	f.ended = time.Now()
	f.update(func(p *Progress) { p.Crawling = false })
	if f.doubts(err, hb) {
		err, out = nil, Outcome{}
	}
	if err != nil {
		return f.trouble(ctx, err)
	}
	if !out.Hinted {
		f.comes = claim{s.Xtime, hb}
	}
	f.passed(s.Xtime, out)
	return nil
}

// doubts tells whether a crawl that began when everything was marked up to hb was refused what may have moved rather than been
// removed. That is so until a crawl which began with all the marks that an earlier one may have missed is refused the same.
func (f *follower) doubts(err error, hb time.Time) bool {
	if !errors.Is(err, limit.ErrMaxDelete) {
		f.doubt = nil
		return false
	}
	known := f.doubt != nil && (hb.After(f.doubted) || f.ended.Sub(f.doubted) > staleBeat)
	if known && limit.Repeats(err, f.doubt) {
		return false
	}
	if known || f.doubt == nil {
		f.doubt, f.doubted = err, f.ended
	}
	return true
}

// idle is all there is to do while nothing is due. Where the slave has everything but files that wait, it is as good as in
// step.
func (f *follower) idle(ctx context.Context, x xtime.Time, now, hb time.Time) error {
	list, _, _ := f.c.Waiting(1)
	if _, failed := f.c.Failures(0); len(list) == 0 || failed > 0 || x != f.coveredXtime {
		return nil
	}
	f.c.opts.Hints.settled()
	f.update(func(p *Progress) {
		p.Following, p.Behind = f.c.opts.Hints.following(), f.orWaits(f.lag.inStep(now, hb))
	})
	return f.clean(ctx, hb)
}

// passed notes how a crawl ended that began when the root's xtime was seen.
func (f *follower) passed(seen xtime.Time, out Outcome) {
	f.rest(seen, out)
	f.tried = seen
	if out.Hinted {
		f.tried = min(seen, out.CoveredXtime) // hints may not reach as far
	}
	if out.Stime != 0 || out.Waiting {
		f.coveredXtime = out.CoveredXtime
		f.update(func(p *Progress) { f.stamped(p, seen, out) })
	}
	if !out.Hinted || out.CoveredXtime >= f.comes.xtime {
		at := f.comes.time
		if !out.Met {
			at = at.Add(-parkedLongest)
		}
		f.met, f.comes = later(f.met, at), claim{}
	}
	var full error
	if err := f.c.Full(); err != nil {
		remedy := "make room there"
		if errors.Is(err, slave.ErrLimit) {
			remedy = "remove something, or raise that limit on its host (georep volume set, or the flags in authorized_keys)"
		}
		full = fmt.Errorf("the slave takes nothing more: %w; %s, replication then goes on by itself", err, remedy)
	}
	f.tell(full)
}

// stamped notes what the slave has after a crawl without failures.
func (f *follower) stamped(p *Progress, seen xtime.Time, out Outcome) {
	p.Stime, p.InStep = out.Stime, !out.Waiting && (!out.Hinted || out.Stime >= seen)
	p.Behind = time.Time{}
	if !p.InStep {
		p.Behind = f.behind()
	}
	p.LastSynced = later(p.LastSynced, f.claims.proven(out.Stime))
	if !out.Waiting && !out.Hinted {
		f.claims = nil // also those of a clock that was set back since
	}
}

// trouble sorts what ends the session from what is waited out.
func (f *follower) trouble(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !errors.Is(err, source.ErrNotMaster) && !errors.Is(err, limit.ErrMaxDelete) {
		return err
	}
	f.tell(err)
	f.again = time.Now().Add(troublePause)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(troublePause):
		return nil
	}
}

// tell passes on trouble, and its end.
func (f *follower) tell(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || f.bad {
		f.o.Events.Trouble(err)
	}
	f.bad = err != nil
}

// clean deletes what has been parked long enough, where the slave has all that is marked. What moved while the last crawl
// passed may be parked and have no mark yet, so first everything has to be marked that came before the end of that. Where
// things have to stay for a while, that is looked at now and then.
func (f *follower) clean(ctx context.Context, marked time.Time) error {
	if f.c.parked.Load() == 0 || !marked.After(f.ended) || time.Now().Before(f.cleaned.Add(min(f.o.KeepDeleted, cleanEvery))) {
		return nil
	}
	f.cleaned = time.Now()
	return f.c.Clean(ctx, f.o.KeepDeleted)
}

// cleanWhileBusy deletes what was parked before the time up to which the slave has everything, or a crawl has come to
// everything: what moved until then is in its new place. Where changes keep coming the slave is never in step, and would keep
// what was removed for ever; and where hard links lie in directories that are renamed all the time, no crawl settles all names.
// Where something fails in each crawl, or is missed, what moved there may not be in its place for long. Its content is sent
// again then: a slave that is filled up by what was removed would be worse.
func (f *follower) cleanWhileBusy(ctx context.Context) error {
	synced, now := later(f.progress().LastSynced, f.met), time.Now()
	every := max(cleanBusy, min(f.o.KeepDeleted, cleanEvery))
	if f.c.parked.Load() == 0 || !synced.After(f.swept) || now.Before(f.cleaned.Add(every)) {
		return nil
	}
	f.cleaned, f.swept = now, synced
	return f.c.Clean(ctx, max(f.o.KeepDeleted, now.Sub(synced)+parkedFor))
}

func (f *follower) progress() Progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.prog
}

func (f *follower) update(change func(*Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before, idle := f.prog.LastSynced, f.prog.idle()
	change(&f.prog)
	if idle && !f.prog.idle() {
		select {
		case f.stirs <- struct{}{}:
		default:
		}
	}
	if now := f.prog.LastSynced; now.Sub(before) > catchUp || now.After(f.began) && !before.After(f.began) {
		f.prog.CaughtUp = true
		select {
		case f.news <- struct{}{}:
		default:
		}
	}
}

// report calls Progress until stop is closed, and once at the end.
func (f *follower) report(stop <-chan struct{}) {
	timer, due := time.NewTimer(progressEvery), time.Now().Add(progressEvery)
	defer timer.Stop()
	for open := true; open; {
		select {
		case <-stop:
			open = false
		case <-f.news:
		case <-f.stirs:
			// Never later than it was to be: where changes come one by one it stirs more often than that.
			if soon := time.Now().Add(progressEvery); soon.Before(due) {
				due = soon
				timer.Reset(progressEvery)
			}
			continue
		case <-timer.C:
		}
		next := f.reportOnce()
		due = time.Now().Add(next)
		timer.Reset(next)
	}
}

// reportOnce returns when the next report is due, unless something happens before.
func (f *follower) reportOnce() time.Duration {
	list, total := f.c.Failures(listFailures)
	f.mu.Lock()
	defer f.mu.Unlock()
	// One that is ahead of the clock is forgotten: it must not come back when the clock has come up to it.
	f.prog.LastSynced = later(f.prog.LastSynced, time.Time{})
	p := f.prog
	p.Failures, p.Failed = list, total
	p.Waiting, p.Waits, p.WaitingBytes = f.c.Waiting(listFailures)
	f.o.Events.Progress(p)
	f.prog.CaughtUp = false
	if p.idle() && p.Failed == 0 && p.Waits == 0 {
		return idleProgressEvery
	}
	return progressEvery
}

// idle tells whether there is nothing to do.
func (p *Progress) idle() bool { return p.InStep && !p.Crawling }

// later gives the later of two times that are not ahead of the clock. One that is was true of a clock that was set back
// since (xtimes go on from where it stood), and says nothing of what the master had at that time by the clock as it is.
func later(a, b time.Time) time.Time {
	now := time.Now()
	if a.After(now) {
		a = time.Time{}
	}
	if b.After(a) && !b.After(now) {
		return b
	}
	return a
}
