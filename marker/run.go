package marker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/hint"
	"georep/marker/inotify"
	"georep/marker/moment"
	"georep/marker/scan"
	"georep/marker/xtime"
)

// Run is the marker of one volume: it marks what changes until ctx ends, which is a clean end and no error, or until
// nobody uses it (Options.ExitWhenUnused). It returns ErrRunning, wrapped, when another one lives, ErrNotMaster when the
// root is not, or is no longer, the volume's, and any other error when it cannot mark any more.
func Run(ctx context.Context, o Options) error {
	m, err := open(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(m.run(ctx), m.close())
}

// Summary is what Once did.
type Summary struct {
	Entries    int64 // below the root
	Marked     int64 // entries that had changed unmarked
	VolumeMark xtime.Time
	Heartbeat  time.Time  // everything that changed before is marked
	Xtime      xtime.Time // with at most this
}

// Once finds and marks what changed while no marker ran, and leaves. It returns ErrRunning, wrapped, when one lives:
// then WaitMark does what Once would.
func Once(ctx context.Context, o Options) (Summary, error) {
	o.Source = SourceScan
	m, err := open(ctx, o)
	if err != nil {
		return Summary{}, err
	}
	s, err := m.passHeld(ctx)
	if err == nil && s.Incomplete.Load() {
		err = fmt.Errorf("mark the changes of volume %s: some entries could not be read or marked%s; the log names them: try again",
			o.Root, m.troubles.such())
	}
	err = errors.Join(err, m.end())
	hb := m.beats.get()
	sum := Summary{VolumeMark: m.o.VolumeMark, Heartbeat: hb.Time, Xtime: hb.Xtime}
	if s != nil {
		sum.Entries, sum.Marked = s.Entries.Load(), s.Marked.Load()
	}
	return sum, errors.Join(err, m.close())
}

// passHeld scans the tree once, and looks who holds files of it open.
func (m *marker) passHeld(ctx context.Context) (*scan.Scan, error) {
	if _, err := m.held.look(ctx, true); err != nil {
		return nil, err
	}
	s, err := m.scanner.pass(ctx)
	if err != nil || s.Incomplete.Load() || len(m.held.files) == 0 {
		return s, err
	}
	// Of files whose names nobody knew the scan has found them.
	if _, err := m.held.look(ctx, true); err != nil {
		return s, err
	}
	if !m.scanner.fresh {
		m.beats.drained(*m.held.bound(), m.clock.Last())
	}
	return s, nil
}

// marker is one running marker.
type marker struct {
	*core
	o Options
	// lock is marker.lock, held from open to close: one marker a volume.
	lock    *os.File
	users   *os.File // held once nobody uses the marker
	beats   *beats
	mounts  *mounts
	scanner *scanner
	live    *live // nil where it scans from the start
	held    *heldFiles
	// It changes once at most, from events to scans.
	how atomic.Pointer[learn] // where changes are learnt from now
	// plain is core.set as it was before inotify put its own around it.
	plain func(d *beneath.Dir, name string, t xtime.Time) error

	writing sync.Mutex // held while the status is written
}

// open takes the lock, arms the source and sees to the volume mark, in this order (invariant 3).
func open(ctx context.Context, o Options) (*marker, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	held, err := lock(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	m := &marker{o: o, lock: held}
	m.how.Store(&learn{source: SourceScan})
	if m.core, err = newCore(&m.o); err != nil {
		return nil, errors.Join(err, held.Close())
	}
	m.plain = m.set
	m.scanner = newScanner(m.core, &m.o, m.follows)
	if err := m.prepare(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// prepare reads what the marker before left, arms the source, and decides whether a new volume mark
// is needed: where no heartbeat is there, or none that the clock allows to believe. The source is
// armed before that moment is taken, so nothing falls between them (invariant 3).
func (m *marker) prepare(ctx context.Context) error {
	known := false
	var err error
	if m.beats, known, err = openBeats(m.o.Dir, m.files, m.scans.Cover, m.counts.retrying.Load); err != nil {
		return err
	}
	if m.mounts, err = openMounts(m.Root, filepath.Join(m.o.Dir, mountsFile), m.files); err != nil {
		return err
	}
	if m.held, err = newHeldFiles(m); err != nil {
		return err
	}
	m.beats.bound = m.bound
	m.scanner.beats, m.scanner.mounts = m.beats, m.mounts
	if err := m.scans.Own.Load(m.files, filepath.Join(m.o.Dir, ownFile)); err != nil {
		return err
	}
	if err := m.arm(ctx); err != nil {
		return err
	}
	if err := m.noteTimes(); err != nil {
		return err
	}
	armed := moment.Now()
	if _, ok := m.beats.since(armed); !ok || !known || m.o.VolumeMark == 0 || m.o.RaiseMark {
		return m.takeVolumeMark(armed)
	}
	m.beats.lose()
	return m.checkMarked()
}

// noteTimes has scans go by noted times where they alone find what others change.
func (m *marker) noteTimes() error {
	if m.follows() {
		return nil
	}
	if err := inotify.Local(m.Root); err != nil && !errors.Is(err, inotify.ErrRemote) {
		return err
	} else if err == nil && !m.o.remote {
		return nil
	}
	m.scans.Times = &scan.Times{Path: filepath.Join(m.o.Dir, timesFile), Warn: func(err error) {
		m.Often.Warn().Err(err).Msg("unchanged entries may be marked and compared once more")
	}}
	return m.scans.Times.Open()
}

// bound is up to where the heartbeat may move: what came from outside, or lay under a mount, is not covered yet, and
// neither is what was written to held files after they were looked at.
func (m *marker) bound() *moment.Moment {
	bound := m.held.bound()
	for _, other := range []*moment.Moment{m.arrivals.earliest.Load(), m.mounts.since()} {
		if other != nil && other.Boot() < bound.Boot() {
			bound = other
		}
	}
	return bound
}

// checkMarked proves that the root was marked by this volume before. Roots of two file systems of one kind may well
// have the same handle, and so the same GFID.
func (m *marker) checkMarked() error {
	x, err := m.Root.Xtime("", &m.Names)
	if err == nil && x == 0 {
		err = fmt.Errorf("%w: it carries no mark of the volume (is the right file system mounted? If the tree was "+
			"restored without its xattrs, the volume mark has to be raised)", ErrNotMaster)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", m.o.Root, err)
	}
	return nil
}

// takeVolumeMark makes now the xtime of everything that has an older one or none. The mark is saved before the
// heartbeat: a crash in between only takes another one.
func (m *marker) takeVolumeMark(armed moment.Moment) error {
	t, err := m.clock.Next()
	if err != nil {
		return err
	}
	if err := m.o.SaveVolumeMark(t); err != nil {
		return fmt.Errorf("save the volume mark: %w", err)
	}
	raised := m.o.VolumeMark != 0
	m.o.VolumeMark, m.Mark = t, t
	if raised {
		// Whoever sees it on the root must find it in the status, or would take all else for compared.
		if err := m.writeStatus(); err != nil {
			return fmt.Errorf("write the marker's status: %w", err)
		}
	}
	before, err := m.Root.Stat("")
	if err == nil {
		err = m.set(m.Root, "", t)
	}
	if err == nil {
		// The next start looks for it, also after a power cut.
		err = m.Root.Fsync()
	}
	if err != nil {
		return fmt.Errorf("mark the root of volume %s: %w", m.o.Root, err)
	}
	if after, err := m.Root.Stat(""); err == nil {
		m.scans.Own.Add(&before, &after, time.Now())
	}
	m.beats.reset(armed, t)
	m.scanner.fresh = true
	return m.beats.save()
}

// errUnused ends a marker that nobody uses.
var errUnused = errors.New("unused")

// run starts the goroutines and waits for all of them. Each ends the others by its error. The last
// heartbeat and status are written whatever ended them.
func (m *marker) run(ctx context.Context) error {
	m.scanner.fresh = false // scans go on, and move the heartbeat
	m.listenForWorkers()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.learn(ctx) })
	g.Go(func() error { return m.keep(ctx) })
	g.Go(func() error { return m.scanner.heed(ctx) })
	g.Go(func() error { return m.held.watch(ctx) })
	err := g.Wait()
	if errors.Is(err, errUnused) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return errors.Join(err, m.end())
}

// listenForWorkers opens the socket for hints. Without it workers crawl.
func (m *marker) listenForWorkers() {
	var err error
	if m.telling.hints, err = hint.Listen(m.o.Dir, m.Log); err != nil {
		m.Log.Warn().Err(err).Msg("no hints")
	}
	m.telling.certain = func() bool { _, missing := m.beats.losses(); return !missing }
}

// end writes the last heartbeat and status.
func (m *marker) end() error {
	return errors.Join(m.saveOwn(), m.beats.save(), m.writeStatus())
}

// saveOwn saves our own marks for the next scan; not while one failed, since the way up from those that did not may lack
// the mark too, and only their ctimes would tell.
func (m *marker) saveOwn() error {
	path := filepath.Join(m.o.Dir, ownFile)
	if _, missing := m.beats.losses(); missing || m.counts.retrying.Load() > 0 {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return m.scans.Own.Save(m.files, path, m.beats.get().Time.Add(-slack))
}

// close gives everything back, the locks last: the marker's before the users', who may then start
// another. It is called once, also after an open that failed half-way, so it takes what was never
// opened.
func (m *marker) close() error {
	err := error(nil)
	if m.live != nil {
		err = m.live.src.Close()
	}
	if m.mounts != nil {
		err = errors.Join(err, m.mounts.close())
	}
	err = errors.Join(err, m.scans.Times.Close())
	err = errors.Join(err, m.telling.hints.Close(), m.core.close(), m.lock.Close())
	if m.users != nil {
		err = errors.Join(err, m.users.Close())
	}
	return err
}
