package marker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"georep/marker/fanotify"
	"georep/marker/inotify"
	"georep/marker/moment"
)

// learn is where changes are learnt from.
type learn struct {
	source string // SourceFanotify, SourceInotify or SourceScan
	reason string // why none of those before it in this order is used
}

// arm opens the best event source of those that are asked for, or notes why there is none.
func (m *marker) arm(ctx context.Context) error {
	if m.o.Source == SourceScan {
		m.how.Store(&learn{SourceScan, "asked to scan"})
		return nil
	}
	err := m.armEvents(ctx)
	if err == nil {
		return nil
	}
	// Whoever asks for fanotify is not served by less; a limit of inotify can be raised while the scans go on.
	if ctx.Err() != nil || m.o.Source == SourceFanotify || m.o.Source == SourceInotify && !errors.Is(err, inotify.ErrLimit) {
		return fmt.Errorf("listen to the changes of %s: %w", m.o.Root, err)
	}
	m.how.Store(&learn{SourceScan, err.Error()})
	m.Log.Warn().Err(err).Str("root", m.o.Root).Msg("no events here; scanning instead")
	return nil
}

// armEvents tries the source that was asked for, or with `auto` fanotify and then inotify. The
// error has why each of them cannot be used.
func (m *marker) armEvents(ctx context.Context) error {
	switch m.o.Source {
	case SourceFanotify:
		return m.armFanotify()
	case SourceInotify:
		err := m.armInotify(ctx, "asked for inotify")
		if remote := inotify.Local(m.Root); remote != nil {
			m.Log.Warn().Err(remote).Msg("only slow scans find changes there")
		}
		return err
	}
	// What others change behind this kernel's back no source of events tells.
	if err := inotify.Local(m.Root); err != nil {
		return err
	}
	first := m.armFanotify()
	if first == nil {
		return nil
	}
	first = fmt.Errorf("no fanotify: %w", first)
	if err := m.armInotify(ctx, first.Error()); err != nil {
		return fmt.Errorf("%w; no inotify: %w", first, err)
	}
	return nil
}

// armFanotify listens to the whole file system, and proves that events arrive before it relies on
// them. After an error everything is as it was.
func (m *marker) armFanotify() error {
	src, err := fanotify.Open(m.Root.Fd())
	if err != nil {
		return err
	}
	l, err := listen(m.core, src, m.beats)
	if err != nil {
		return errors.Join(err, src.Close())
	}
	m.use(l, SourceFanotify, "")
	err = m.probing(func() error { return l.probe(src, string(m.o.Namespace)+".georep.probe") })
	if err != nil {
		m.live = nil
		m.tree.close()
		m.tree = nil
		return errors.Join(err, src.Close())
	}
	return nil
}

// armInotify watches every directory below the root. With a large tree that takes a while, and
// needs a watch for each.
func (m *marker) armInotify(ctx context.Context, reason string) error {
	l, err := watch(ctx, m.core, m.beats)
	if err == nil {
		m.use(l, SourceInotify, reason)
	}
	return err
}

// use makes l what the marker learns from, and connects it with the scanner.
func (m *marker) use(l *live, source, reason string) {
	m.live = l
	l.lost = func() { m.beats.lose(); m.scanner.wakeUp() }
	m.wantScan, l.blind = m.scanner.wakeUp, m.scanner.beBlind
	m.how.Store(&learn{source, reason})
}

// probing calls fn, which changes an xattr of the root, and remembers the ctime that this gives the root, so that a start
// with nothing changed marks nothing; but not where the root itself may have changed while no marker ran.
func (m *marker) probing(fn func() error) error {
	before, err := m.Root.Stat("")
	if err != nil {
		return err
	}
	since, known := m.beats.since(moment.Now())
	unchanged := known && (m.scans.Own.Has(&before) || time.Unix(before.Ctime.Sec, int64(before.Ctime.Nsec)).Before(since))
	if err := fn(); err != nil {
		return err
	}
	if after, err := m.Root.Stat(""); err == nil && unchanged {
		m.scans.Own.Add(&before, &after, time.Now())
	}
	return nil
}

// follows tells whether events tell of changes now. follow marks by events and scans beside that,
// until either fails or ctx ends.
func (m *marker) follows() bool { return m.how.Load().source != SourceScan }

// learn marks what changes: by events as long as there are any, else by scans.
func (m *marker) learn(ctx context.Context) error {
	if m.live != nil {
		err := m.follow(ctx)
		if !errors.Is(err, inotify.ErrLimit) {
			return err
		}
		m.fallBack(err)
	}
	return m.scanner.scanAlways(ctx)
}

func (m *marker) follow(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.live.run(ctx) })
	g.Go(func() error { return m.scanner.scanNow(ctx) })
	return g.Wait()
}

// fallBack is for when the kernel gives no more watches: from now on scans find what events would
// have told. What was to be tried again is dropped, and the heartbeat told of a loss, so that the
// first scan finds it. Sessions go on; their hints end here, since a scan does not know names.
func (m *marker) fallBack(err error) {
	m.Log.Warn().Err(err).Str("root", m.o.Root).Msg("not everything can be watched any more; scanning instead")
	m.beats.lose()
	m.core.mu.Lock()
	m.tree, m.set = nil, m.plain
	m.retry, m.detached.astray = newBatch(), nil
	m.arrivals.forget() // they are not covered
	m.counts.retrying.Store(0)
	m.core.mu.Unlock()
	m.how.Store(&learn{SourceScan, err.Error()})
	if err := m.live.src.Close(); err != nil {
		m.Log.Warn().Err(err).Msg("inotify")
	}
}
