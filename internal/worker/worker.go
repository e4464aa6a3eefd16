// Package worker is the process that replicates one session: it puts together what marker, crawler and slave each do,
// reports to its monitor and obeys it. The same parts, without a monitor, are the one-shot sync.
//
// It owns the connection to the slave and the master's root for as long as it runs. It does not retry: when the session
// fails it says why and ends, and the monitor starts it again.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/internal/wallclock"
	"georep/marker"
	"georep/marker/hint"
	"georep/marker/xtime"
	"georep/monitor/report"
	"georep/slave"
	"georep/slave/policy"
	"georep/status"
	"georep/volume"
)

// poll is how often the xtime of the master's root is looked at: a handful of system calls.
const poll = 20 * time.Millisecond

// slowPoll is the same while the marker tells of each mark.
const slowPoll = 500 * time.Millisecond

// Config says which session to work on. Session and Volume are as the registry had them when the
// process began; a change begins a new run.
type Config struct {
	Store   *volume.Store
	Session volume.Session
	Volume  volume.Volume
	Version string
	Logger  zerolog.Logger
	Force   bool

	oneShot bool // it is a sync, which nobody need have started a marker for
}

// Run replicates until ctx ends, the monitor closes commands, or the session fails. What ends it is
// reported as well as returned. It returns nil only where ctx or the monitor ended it. There is one
// error for a run: whatever comes later is a consequence.
func Run(ctx context.Context, c Config, commands io.Reader, reports *report.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		reports.Run(ctx)
		cancel() // nobody listens any more
	})
	gate := newGate(c.Session.Paused)
	go func() { // ends with the process: a read of standard input cannot be interrupted
		report.ReadCommands(commands, gate.obey(cancel))
		cancel()
	}()
	runtime := c.Store.Runtime(c.Volume.Name).Dir
	t := &teller{reports: reports, counters: &crawler.Counters{}, wire: new(atomic.Int64),
		runtime: runtime, marker: marker.NewStatusReader(runtime), log: c.Logger, clock: wallclock.New()}
	o, err := c.Session.Options()
	if err != nil {
		reports.Faulty(report.Fault{Reason: err.Error(), Final: true})
		return err
	}
	for {
		err := gate.run(ctx, func(ctx context.Context) error {
			return inWindow(ctx, o.Windows, func(ctx context.Context) error { return replicate(ctx, c, t) },
				func(ctx context.Context, until time.Time) error { return waitForWindow(ctx, c, t, until) })
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil || errors.Is(err, errPaused):
			continue
		}
		reports.Faulty(report.Fault{Reason: err.Error(), Final: connect.Final(err)})
		return err
	}
}

// replicate connects and follows the master until ctx ends or the session fails. What told counts
// goes on where it stood before a pause. The parts are closed in the reverse order of their
// opening, the slave before the master's root.
func replicate(ctx context.Context, c Config, told *teller) error {
	m, err := openMaster(ctx, c)
	if err != nil {
		return err
	}
	defer m.Close()
	counters, wire := told.counters, told.wire
	tree, err := connect.Slave(ctx, connect.Config{Store: c.Store, Session: c.Session, Volume: c.Volume, Force: c.Force,
		Version: c.Version, Logger: c.Logger, Wire: wire, NeedsBulk: m.much(&c)})
	if err != nil {
		return err
	}
	defer tree.Close()
	hints := &crawler.Hints{}
	taken, err := m.filtered(ctx, &c, tree)
	if err != nil {
		return err
	}
	told.pending = newApprovals(&c)
	crawled, stopTelling := tellChanges(&c, tree, told.reports)
	defer stopTelling()
	cr, o, err := m.crawler(c, crawled, parts{counters, hints, told.pending, taken})
	if err != nil {
		return err
	}
	defer func() {
		c.Logger.Info().Int64("surveyed", counters.Surveyed.Load()).Int64("visited", counters.Visited.Load()).
			Int64("hinted", counters.Hinted.Load()).Int64("files", counters.Files.Load()).
			Int64("bytes", counters.Bytes.Load()).Msg("the worker ends")
	}()
	told.agent, told.hints, told.eta = tree.Info().Confined, hints, newEstimator(m.Dir, counters, wire, c.Logger)
	told.eta.total.filter, told.filter = taken.Filter, taken.String()
	defer told.eta.stop()
	ctx, stop := watch(ctx, tree)
	defer stop()
	defer watchAnswers(tree, told.begin())()
	if o.Hints {
		defer listen(ctx, told.runtime, hints)()
	}
	err = cr.Follow(ctx, crawler.FollowOptions{Poll: poll, SlowPoll: slowPoll, KeepDeleted: o.KeepDeleted,
		Heartbeat: m.heartbeat, Events: crawler.Events{Ready: told.ready, Progress: told.progress, Trouble: told.trouble}})
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// listen takes the marker's hints until the returned function is called. A marker that is not there
// is waited for; without hints the crawler looks at the root's xtime, less often.
func listen(ctx context.Context, runtime string, hints *crawler.Hints) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { hint.Follow(ctx, runtime, hints) })
	return func() { cancel(); wg.Wait() }
}

// watch ends ctx, with the cause, when the connection to the slave is lost: an idle worker asks
// nothing of it. The function that it returns ends the watch, and waits for it.
func watch(ctx context.Context, tree slave.Reader) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	lost, ok := tree.(interface {
		Done() <-chan struct{}
		Err() error
	})
	if !ok {
		return ctx, func() { cancel(nil) }
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-lost.Done():
			cancel(lost.Err())
		case <-ctx.Done():
		}
	})
	return ctx, func() { cancel(nil); wg.Wait() }
}

// master is the volume as the worker sees it: its root, and what its marker says. Its descriptor
// stays on the same directory whatever happens to the path; the crawler checks that it is the
// recorded one.
type master struct {
	*beneath.Dir
	mounts  *marker.Mounts
	volume  volume.Volume
	uuid    xtime.UUID
	ns      xtime.Namespace
	runtime string
	status  *marker.StatusReader
	log     zerolog.Logger
}

// newMaster is the volume as the registry has it. Its root is not open.
func newMaster(c *Config) (*master, error) {
	runtime := c.Store.Runtime(c.Volume.Name).Dir
	m := &master{volume: c.Volume, runtime: runtime, status: marker.NewStatusReader(runtime), log: c.Logger}
	var err error
	if m.uuid, err = xtime.ParseUUID(c.Volume.UUID); err != nil {
		return nil, err
	}
	if m.ns, err = xtime.ParseNamespace(c.Volume.Namespace); err != nil {
		return nil, fmt.Errorf("volume %s: %w", c.Volume.Name, err)
	}
	return m, nil
}

// openMaster opens the volume once its marker has marked it. It waits until the marker has taken
// the volume mark, or ctx ends. The caller closes it.
func openMaster(ctx context.Context, c Config) (*master, error) {
	m, err := newMaster(&c)
	if err != nil {
		return nil, err
	}
	if err := m.waitMarked(ctx); err != nil {
		return nil, err
	}
	if m.Dir, err = beneath.OpenRoot(c.Volume.Path, true); err != nil {
		return nil, source.RootError(c.Volume.Path, err)
	}
	if err := m.Enterable(); err != nil {
		m.Dir.Close()
		return nil, source.RootError(c.Volume.Path, err)
	}
	if m.mounts, err = marker.ReadMounts(m.Dir, m.runtime); err != nil {
		m.Dir.Close()
		return nil, err
	}
	return m, nil
}

// Close closes what openMaster opened. Its errors tell nothing.
func (m *master) Close() {
	m.mounts.Close()
	m.Dir.Close()
}

// waitMarked waits for the volume mark: before it there is nothing to compare.
func (m *master) waitMarked(ctx context.Context) error {
	for m.mark() == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
	return nil
}

// much is connect.Config's: a slave that was never in step wants all that the master has.
func (m *master) much(c *Config) func(context.Context) bool {
	st, err := status.Read(c.Store.Files(c.Session.Master, c.Session.Slave).Status)
	if err == nil && !st.LastSynced.IsZero() {
		return nil
	}
	return func(ctx context.Context) bool { return holdsMuch(ctx, m.Dir) }
}

// mark is the volume mark as the marker knows it; 0 before it has said so.
func (m *master) mark() xtime.Time {
	s, err := m.status.Read()
	if err != nil {
		return 0
	}
	return s.VolumeMark
}

func (m *master) heartbeat() time.Time {
	s, err := m.status.Read()
	if err != nil {
		return time.Time{}
	}
	return s.Heartbeat
}

func (m *master) entries() int64 {
	s, err := m.status.Read()
	if err != nil {
		return 0
	}
	return max(s.Entries, 0)
}

// parts are what a crawler is made of; hints are for one that follows, nil for none.
type parts struct {
	counters *crawler.Counters
	hints    *crawler.Hints
	pending  *approvals
	filter   taken
}

// crawler makes the crawler for this master and the given slave. The options that it returns are
// those it was made with.
func (m *master) crawler(c Config, tree slave.Tree, p parts) (*crawler.Crawler, volume.Options, error) {
	o, err := c.Session.Options()
	if err != nil {
		return nil, o, err
	}
	id := beneath.Identity{FSID: m.volume.FSID}
	if id.GFID, err = xtime.ParseGFID(m.volume.RootGFID); err != nil {
		return nil, o, fmt.Errorf("volume %s: %w", m.volume.Name, err)
	}
	quiet := o.QuietPeriod
	if p.hints == nil {
		quiet = 0 // of a sync everything is wanted at once
	}
	fake, err := wasFake(&m.volume)
	if err != nil {
		return nil, o, err
	}
	return crawler.New(crawler.Options{Root: m.Dir, Path: m.volume.Path, Names: xtime.NamesFor(m.ns, m.uuid),
		VolumeMark: m.mark, Identity: id, Tree: tree, Logger: c.Logger, Counters: p.counters, MaxDelete: o.MaxDelete,
		FreeDeletes: int64(o.FreeDeletes), Approvals: p.pending, Hints: p.hints, Quick: o.Quick, RetryMax: o.RetryMax, QuietPeriod: quiet,
		MaxDelay: o.MaxDelay, InFlight: inFlight(c, o), Source: crawler.SourceOptions{Mounts: m.mounts.Get, FakeOwner: fake}, Filter: p.filter.Filter,
		FilterSince: p.filter.since}), o, nil
}

// wasFake tells whether the master was filled as a slave under the policy fake-owner, as the registry of its host says.
func wasFake(v *volume.Volume) (bool, error) {
	p, err := policy.Parse(v.Policy)
	if err != nil {
		return false, fmt.Errorf("the policy of volume %s is damaged: %w; see georep volume set", v.Name, err)
	}
	return p.FakeOwner, nil
}

// inFlight is how many batches are on their way: for each stream one that is being sent and a few
// whose answers take a round trip and a sync on the slave's disk. Operations alone are in memory,
// 100 KiB or so for a batch.
func inFlight(c Config, o volume.Options) int {
	if c.Session.Slave.Local() {
		return 0
	}
	return max(leastInFlight, inFlightPerStream*o.SyncJobs)
}

const (
	leastInFlight     = 8
	inFlightPerStream = 4
)

// teller turns what the crawler says into reports. All but what mu guards is for the crawl's
// goroutine.
type teller struct {
	reports  *report.Writer
	counters *crawler.Counters
	hints    *crawler.Hints
	wire     *atomic.Int64
	runtime  string
	marker   *marker.StatusReader
	agent    string // what confines it
	filter   string // what is left out
	log      zerolog.Logger
	eta      *estimator
	pending  *approvals
	last     crawler.Progress // what was reported last
	logged   logged
	clock    *wallclock.Watch

	mu     sync.Mutex      // guards what follows
	begun  bool            // the slave was looked at
	stands error           // what holds the crawler up
	silent error           // the slave answers nothing
	told   report.Progress // last; nothing where the monitor has to be told whatever it is
}

// begin begins with a new connection, and returns how to tell that its slave answers nothing, and with nil that it does again.
func (t *teller) begin() func(error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun, t.stands, t.silent, t.told = false, nil, nil, report.Progress{}
	return func(silent error) {
		if silent != nil {
			t.log.Warn().Err(silent).Msg("replication stands still")
		}
		t.say(func() { t.silent = silent })
	}
}

// say changes how replication stands, and reports it. Before the slave was looked at nothing can be well.
func (t *teller) say(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	t.told = report.Progress{} // the monitor forgets some of it
	switch {
	case t.silent != nil:
		t.reports.Faulty(report.Fault{Reason: t.silent.Error()})
	case t.stands != nil:
		t.reports.Faulty(report.Fault{Reason: t.stands.Error(), Refused: errors.Is(t.stands, limit.ErrMaxDelete)})
	case t.begun:
		t.reports.Ready()
	}
}

// ready is called when the slave has been looked at: from then on the session is Active.
func (t *teller) ready() {
	t.log.Info().Msg("the slave is connected")
	t.say(func() { t.begun, t.stands = true, nil })
}

// trouble says why the crawler stands still, and with nil that it goes on.
func (t *teller) trouble(err error) {
	if err == nil {
		t.logged.trouble = ""
		t.log.Info().Msg("replication goes on")
		t.say(func() { t.begun, t.stands = true, nil })
		return
	}
	t.pending.refused(err)
	if msg := err.Error(); msg != t.logged.trouble { // once, not at every try
		t.logged.trouble = msg
		t.log.Warn().Err(err).Msg("replication stands still")
	}
	t.say(func() { t.stands = err })
}

// markerLate is how old the marker's heartbeat may be before the status says why.
const markerLate = 10 * time.Second

// progress is called often, so it sends only what has changed, and what the monitor must not miss.
func (t *teller) progress(p crawler.Progress) {
	t.tellLost()
	t.last = p
	out := t.withMarker(Progress(p, t.counters, t.hints, t.wire, t.clock))
	out.ETASeconds = t.eta.seconds(time.Now(), p.Stime == 0)
	switch same := t.tells(out); {
	case p.CaughtUp:
		t.reports.News(out)
	case !same:
		t.reports.Progress(out)
	}
}

// withMarker adds what the marker says.
func (t *teller) withMarker(out report.Progress) report.Progress {
	s, err := t.marker.Read()
	out.Confined, out.Filter = confined(t.agent, s.Confined), t.filter
	if err == nil {
		out.HiddenAt = status.Time{Time: s.HiddenAt}
		out.Marker, out.Unmarked, out.HiddenWriters, out.QueueOverflows = s.Source, s.UnmarkedSample, s.Hidden, s.Overflows
		if s.Retrying > 0 || time.Since(s.Heartbeat) > markerLate {
			out.MarkerWaits = s.Reason
		}
	}
	return out
}

// tells notes what the monitor is told, and tells whether it knows that already. An idle session costs next to nothing then.
func (t *teller) tells(p report.Progress) (known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known = reflect.DeepEqual(p, t.told)
	t.told = p
	return known
}

// confined says who is confined by what; "" stands for one of whom that is not known.
func confined(agent, marker string) string {
	var by []string
	if agent != "" {
		by = append(by, "the agent by "+agent)
	}
	if marker != "" {
		by = append(by, "the marker by "+marker)
	}
	return strings.Join(by, "; ")
}

// Progress is the report of p; hints may be nil. The lag leaves out by how much the clock was set.
// It is a plain value; times in it are by the clock as it is set now.
func Progress(p crawler.Progress, c *crawler.Counters, hints *crawler.Hints, wire *atomic.Int64, clock *wallclock.Watch) report.Progress {
	out := report.Progress{
		Stime: uint64(p.Stime), LastSynced: status.Time{Time: p.LastSynced}, FailuresTotal: p.Failed, Crawl: status.NoCrawl,
		Pending: status.Pending{Entries: c.PendingEntries.Load() + hints.Names(), Files: c.PendingFiles.Load(),
			Bytes: c.PendingBytes.Load(), Meta: c.PendingMeta.Load()},
		Synced: status.Synced{Crawls: c.Crawls.Load(), Files: c.Files.Load(), BytesWire: wire.Load(),
			BytesContent: c.Bytes.Load(), Renames: c.Renames.Load(), Purges: c.Purges.Load()},
		NotKept: c.NotKept(), Policy: c.Policy(),
	}
	switch {
	case p.Following:
		out.Crawl = status.ChangelogCrawl
	case p.Crawling || !p.InStep:
		out.Crawl = status.HybridCrawl
	}
	if !p.Behind.IsZero() {
		out.LagSeconds = clock.Since(p.Behind).Seconds()
	}
	out.Pending.Entries += int64(p.Waits)
	out.Pending.Files += int64(p.Waits)
	out.Pending.Bytes += p.WaitingBytes
	for _, w := range p.Waiting {
		out.Waiting = append(out.Waiting, status.Waiting{Path: w.Path, Since: status.Time{Time: w.Since}, Large: w.Large})
	}
	out.WaitingTotal = p.Waits
	for _, f := range p.Failures {
		out.Failures = append(out.Failures, status.Failure{Path: f.Path, Op: f.Op, Error: cause(&f).Error(),
			Since: status.Time{Time: f.Since}})
	}
	return out
}
