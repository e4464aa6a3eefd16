package worker

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"georep/crawler"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/marker/xtime"
	"georep/slave"
)

// VerifyConfig is Config with what a verification needs.
type VerifyConfig struct {
	Config
	// What is to be compared, and who is told; Settle is set here.
	crawler.VerifyOptions
	// Known, if set, gets how many entries the master has, as far as that is known.
	Known *atomic.Int64
}

// Verify compares master and slave in full, over a connection of its own, whether or not a session
// runs. It changes nothing on the slave. What is not marked yet on the master is marked first, as
// for a sync. It may run beside the session, and then looks several times at what is in motion. The
// error is that of the comparison itself; differences are in the summary.
func Verify(ctx context.Context, c VerifyConfig) (crawler.VerifySummary, error) {
	if !beneath.ValidPath(c.Path) {
		return crawler.VerifySummary{}, fmt.Errorf("path %q: give it relative to the volume, with no dot components", c.Path)
	}
	if err := mark(ctx, c.Config); err != nil {
		return crawler.VerifySummary{}, err
	}
	m, err := openMaster(ctx, c.Config)
	if err != nil {
		return crawler.VerifySummary{}, err
	}
	defer m.Close()
	tree, err := inspect(ctx, c.Config)
	if err != nil {
		return crawler.VerifySummary{}, err
	}
	defer tree.Close()
	defer tellAnswers(&c.Config, tree)()
	id := beneath.Identity{FSID: m.volume.FSID}
	if id.GFID, err = xtime.ParseGFID(m.volume.RootGFID); err != nil {
		return crawler.VerifySummary{}, fmt.Errorf("volume %s: %w", m.volume.Name, err)
	}
	fake, err := wasFake(&m.volume)
	if err != nil {
		return crawler.VerifySummary{}, err
	}
	taken, err := filterToInspect(&c.Config, tree)
	if err != nil {
		return crawler.VerifySummary{}, err
	}
	o := crawler.Options{Root: m.Dir, Path: m.volume.Path, Names: xtime.NamesFor(m.ns, m.uuid), VolumeMark: m.mark,
		Identity: id, Logger: c.Logger, Counters: &crawler.Counters{},
		Source: crawler.SourceOptions{Mounts: m.mounts.Get, FakeOwner: fake}, Filter: taken.Filter, FilterSince: taken.since}
	if c.Known != nil && taken.Filter == nil {
		c.Known.Store(m.entries()) // the marker counts what a filter leaves out, too
	}
	c.Slave = tree
	c.Settle = func(ctx context.Context) error { return mark(ctx, c.Config) }
	return crawler.Verify(ctx, o, c.VerifyOptions)
}

// Distrust makes the slave's entries at paths differ from their records, so that the next crawl
// from the root compares and mends them. It needs no lock: the session's agent reads records before
// it relies on them.
func Distrust(ctx context.Context, c Config, paths []string) error {
	tree, err := inspect(ctx, c)
	if err != nil {
		return err
	}
	defer tree.Close()
	defer tellAnswers(&c, tree)()
	examiner, ok := tree.(slave.Examiner)
	if !ok {
		return errors.New("a slave by SFTP cannot be verified: nothing of georep's runs there to hash its files; georep restore copies it to a " +
			"directory here, where it can be compared")
	}
	results, err := examiner.Distrust(ctx, paths)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil {
			return fmt.Errorf("take back the slave's record: %w", r.Err)
		}
	}
	return nil
}

// inspect opens the slave beside whatever worker the session has.
func inspect(ctx context.Context, c Config) (slave.Reader, error) {
	return connect.Inspect(ctx, connect.Config{Store: c.Store, Session: c.Session, Volume: c.Volume, Version: c.Version, Logger: c.Logger,
		Wire: new(atomic.Int64)})
}
