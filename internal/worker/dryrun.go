package worker

import (
	"context"
	"errors"
	"io/fs"
	"sync/atomic"
	"time"

	"georep/crawler"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/marker"
	"georep/marker/xtime"
	"georep/slave"
)

// DryRun tells what a sync of the session would do now, and does nothing: not on the slave, nor on the master, nor in the registry,
// which need not know them. found is told each change. What a running marker is about to mark it marks in any case.
func DryRun(ctx context.Context, c Config, found func(crawler.Change)) (crawler.Forecast, error) {
	return dryRun(ctx, &c, crawler.DryRunOptions{Found: found})
}

// Removals is DryRun for what would be removed alone: it reads no content, however much both sides have in common.
func Removals(ctx context.Context, c Config, found func(crawler.Change)) (crawler.Forecast, error) {
	return dryRun(ctx, &c, crawler.DryRunOptions{OnlyRemoved: true, Found: func(ch crawler.Change) {
		if ch.Do == crawler.Remove {
			found(ch)
		}
	}})
}

// It has no marker's socket, no lock and no status: a session may run meanwhile.
func dryRun(ctx context.Context, c *Config, d crawler.DryRunOptions) (crawler.Forecast, error) {
	m, err := newMaster(c)
	if err != nil {
		return crawler.Forecast{}, err
	}
	if m.Dir, err = beneath.OpenRoot(c.Volume.Path, true); err != nil {
		return crawler.Forecast{}, source.RootError(c.Volume.Path, err)
	}
	defer m.Dir.Close()
	if err := m.markedUpTo(ctx, &d); err != nil {
		return crawler.Forecast{}, err
	}
	o, end, err := m.dryOptions(c)
	if err != nil {
		return crawler.Forecast{}, err
	}
	defer end()
	if d.Slave, err = lookAt(ctx, c); err != nil {
		return crawler.Forecast{}, err
	}
	defer d.Slave.Close()
	defer tellAnswers(c, d.Slave)()
	taken, err := filterToInspect(c, d.Slave)
	if err != nil {
		return crawler.Forecast{}, err
	}
	o.Filter, o.FilterSince = taken.Filter, taken.since
	return crawler.DryRun(ctx, o, d)
}

// markedUpTo finds up to when the master is marked. Without a marker it is the last heartbeat, and
// everything with a later ctime counts as changed.
func (m *master) markedUpTo(ctx context.Context, d *crawler.DryRunOptions) error {
	if marker.Alive(m.runtime) {
		err := marker.WaitMark(ctx, m.runtime, time.Now())
		if d.Marked = err == nil; err == nil || !errors.Is(err, marker.ErrNotRunning) {
			return err
		}
	}
	d.Since = m.heartbeat()
	return nil
}

// dryOptions are a crawler's but for the slave. end closes what they hold, once nothing uses them.
func (m *master) dryOptions(c *Config) (o crawler.Options, end func(), err error) {
	settings, err := c.Session.Options()
	if err != nil {
		return o, nil, err
	}
	fake, err := wasFake(&m.volume)
	if err != nil {
		return o, nil, err
	}
	if m.mounts, err = marker.ReadMounts(m.Dir, m.runtime); err != nil {
		return o, nil, err
	}
	o = crawler.Options{Root: m.Dir, Path: m.volume.Path, Names: xtime.NamesFor(m.ns, m.uuid), VolumeMark: m.mark,
		Logger: c.Logger, Counters: &crawler.Counters{}, Quick: settings.Quick, Source: crawler.SourceOptions{Mounts: m.mounts.Get, FakeOwner: fake}}
	return o, func() { m.mounts.Close() }, nil
}

// lookAt opens the slave to be looked at. A directory that is not there yet would be made, so it is an empty one.
func lookAt(ctx context.Context, c *Config) (slave.Reader, error) {
	tree, err := connect.Inspect(ctx, connect.Config{Store: c.Store, Session: c.Session, Volume: c.Volume, Version: c.Version, Logger: c.Logger,
		Wire: new(atomic.Int64), DryRun: true, Force: c.Force})
	if err != nil && c.Session.Slave.Volume == "" && errors.Is(err, slave.ErrNoVolume) && errors.Is(err, fs.ErrNotExist) {
		return empty{}, nil
	}
	return tree, err
}

// Look tells whether the slave may be used, as far as that shows without a trace.
func Look(ctx context.Context, c Config) error {
	tree, err := lookAt(ctx, &c)
	if err != nil {
		return err
	}
	return tree.Close()
}

// empty is a slave that is not there yet. Every method that is not here would panic, and none of
// them is called by a dry run.
type empty struct{ slave.Reader }

// Info is what most slaves are.
func (empty) Info() slave.Info { return slave.Info{Namespace: xtime.Trusted, Root: true} }

// Survey finds nothing.
func (empty) Survey(_ context.Context, q []slave.Query) ([]slave.DirState, error) {
	out := make([]slave.DirState, len(q))
	for i := range out {
		out[i].Err = fs.ErrNotExist
	}
	return out, nil
}

// Close closes nothing.
func (empty) Close() error { return nil }
