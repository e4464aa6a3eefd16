package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"georep/crawler"
	"georep/crawler/limit"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/internal/wallclock"
	"georep/marker"
	"georep/marker/xtime"
	"georep/monitor/report"
	"georep/status"
	"georep/volume"
)

// ErrIncomplete means that a sync ended with entries that could not be brought over.
var ErrIncomplete = errors.New("not everything could be brought over")

// SyncConfig is Config with what the one shot needs.
type SyncConfig struct {
	Config
	// Progress is called a few times a second, with the number of entries the master has as far as is known, and the
	// number looked at so far.
	Progress func(p report.Progress, entries, seen int64)
}

// syncTries is how often a sync crawls while something fails or changes under it.
const syncTries = 5

// refusedPause is how long what may have moved, rather than been removed, has time to be marked in its new place.
const refusedPause = 300 * time.Millisecond

// Sync brings the slave in step with what the master is when it begins, and returns what it did.
// Entries that could not be brought over make it end with ErrIncomplete; they are in the report. It
// needs no marker, and starts none. Where a session runs for the same slave it fails, since that
// has the slave's lock.
func Sync(ctx context.Context, c SyncConfig) (report.Progress, error) {
	if err := mark(ctx, c.Config); err != nil {
		return report.Progress{}, err
	}
	m, err := openMaster(ctx, c.Config)
	if err != nil {
		return report.Progress{}, err
	}
	defer m.Close()
	wire := new(atomic.Int64)
	tree, err := connect.Slave(ctx, connect.Config{Store: c.Store, Session: c.Session, Volume: c.Volume, Force: c.Force,
		Version: c.Version, Logger: c.Logger, Wire: wire, NeedsBulk: m.much(&c.Config)})
	if err != nil {
		return report.Progress{}, err
	}
	defer tree.Close()
	defer tellAnswers(&c.Config, tree)()
	counters := &crawler.Counters{}
	c.oneShot = true
	taken, err := m.filtered(ctx, &c.Config, tree)
	if err != nil {
		return report.Progress{}, err
	}
	pending := newApprovals(&c.Config)
	cr, o, err := m.crawler(c.Config, tree, parts{counters: counters, pending: pending, filter: taken})
	if err != nil {
		return report.Progress{}, err
	}
	s := &oneShot{cr: cr, counters: counters, wire: wire, clock: wallclock.New(), master: m, show: c.Progress,
		eta: newEstimator(m.Dir, counters, wire, c.Logger)}
	s.eta.total.filter = taken.Filter
	defer s.eta.stop()
	err = s.run(ctx)
	pending.refused(err)
	if err == nil {
		err = cr.Clean(ctx, o.KeepDeleted)
	}
	return s.report(), err
}

// mark makes sure that everything that has changed up to now is marked: by the marker that runs, or
// by a scan. After it returned, a crawl finds every change from before its call.
func mark(ctx context.Context, c Config) error {
	runtime, err := c.Store.MakeRuntime(c.Volume.Name)
	if err != nil {
		return err
	}
	now := time.Now()
	if marker.Alive(runtime.Dir) {
		err := marker.WaitMark(ctx, runtime.Dir, now)
		if !errors.Is(err, marker.ErrNotRunning) {
			return err
		}
	}
	o, err := MarkerOptions(c.Store, c.Volume, c.Logger)
	if err != nil {
		return err
	}
	_, err = marker.Once(ctx, o)
	if errors.Is(err, marker.ErrRunning) {
		return marker.WaitMark(ctx, runtime.Dir, now)
	}
	return err
}

// MarkerOptions are those of a volume's marker, for its process and for a sync without one. They
// say nothing of who waits for the marker; the caller adds that.
func MarkerOptions(store *volume.Store, v volume.Volume, log zerolog.Logger) (marker.Options, error) {
	uuid, err := xtime.ParseUUID(v.UUID)
	if err != nil {
		return marker.Options{}, err
	}
	ns, err := xtime.ParseNamespace(v.Namespace)
	if err != nil {
		return marker.Options{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	id := beneath.Identity{FSID: v.FSID}
	if id.GFID, err = xtime.ParseGFID(v.RootGFID); err != nil {
		return marker.Options{}, fmt.Errorf("volume %s: %w", v.Name, err)
	}
	save := func(t xtime.Time) error {
		_, err := store.UpdateVolume(v.Name, func(v *volume.Volume) error {
			v.VolumeMark = uint64(t)
			return nil
		})
		return err
	}
	return marker.Options{Root: v.Path, UUID: uuid, Namespace: ns, Dir: store.Runtime(v.Name).Dir, Identity: id,
		VolumeMark: xtime.Time(v.VolumeMark), SaveVolumeMark: save, Logger: log}, nil
}

// oneShot is one sync.
type oneShot struct {
	cr       *crawler.Crawler
	counters *crawler.Counters
	wire     *atomic.Int64
	clock    *wallclock.Watch
	master   *master
	show     func(p report.Progress, entries, seen int64)
	eta      *estimator
	began    time.Time
	first    atomic.Bool // the slave had no stime when this began
	inStep   atomic.Bool
	stime    atomic.Uint64 // the slave's, once it is in step
}

// It crawls again while something fails or is missed, with the crawler's pauses between.
func (s *oneShot) run(ctx context.Context) error {
	s.began = time.Now()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { s.showLoop(stop) })
	defer wg.Wait()
	defer close(stop)
	look, err := s.cr.Look(ctx)
	if err != nil {
		return err
	}
	if look.InStep() {
		s.stime.Store(uint64(look.Stime))
		s.inStep.Store(true)
		return nil
	}
	s.first.Store(look.Stime == 0)
	last := &look
	var refused error // by the crawl before: what is refused twice has not moved meanwhile
	for range syncTries {
		out, err := s.cr.PassAfter(ctx, last)
		last = nil
		if errors.Is(err, limit.ErrMaxDelete) && !limit.Repeats(err, refused) {
			refused = err
			if err := waitUntil(ctx, time.Now().Add(refusedPause)); err != nil {
				return err
			}
			continue
		}
		refused = nil
		if err != nil {
			return err
		}
		// Where something was missed because it was moving, the stamp says up to where nothing was.
		if out.Stime != 0 && (!out.Waiting || out.Stime >= look.Xtime) {
			s.stime.Store(uint64(out.Stime))
			s.inStep.Store(true)
			return nil
		}
		if err := waitUntil(ctx, s.cr.NextRetry()); err != nil {
			return err
		}
	}
	if refused != nil {
		return refused
	}
	list, total := s.cr.Failures(1)
	if total == 0 {
		return fmt.Errorf("%w: the master changed faster than it could be read", ErrIncomplete)
	}
	return fmt.Errorf("%w: %d entries failed, the first of them: %w; run sync again once that is mended", ErrIncomplete,
		total, list[0].Err)
}

// waitUntil waits for a time by the clock, or gives ctx's error.
func waitUntil(ctx context.Context, t time.Time) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(t)):
		return nil
	}
}

// showLoop shows the progress four times a second until stop is closed.
func (s *oneShot) showLoop(stop <-chan struct{}) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if s.show != nil {
				p := s.report()
				p.ETASeconds = s.eta.seconds(time.Now(), s.first.Load())
				entries := s.master.entries()
				if s.eta.total.filter != nil {
					entries = 0 // the marker counts what is left out, too
				}
				s.show(p, entries, s.counters.Entries.Load())
			}
		}
	}
}

// report is how the sync stands now; it may be called at any time.
func (s *oneShot) report() report.Progress {
	list, total := s.cr.Failures(status.MaxFailures)
	p := crawler.Progress{InStep: s.inStep.Load(), Failures: list, Failed: total}
	if p.InStep {
		p.LastSynced, p.Stime = s.began, xtime.Time(s.stime.Load())
	}
	out := Progress(p, s.counters, nil, s.wire, s.clock)
	if marked, err := s.master.status.Read(); err == nil {
		out.HiddenAt = status.Time{Time: marked.HiddenAt}
	}
	return out
}
