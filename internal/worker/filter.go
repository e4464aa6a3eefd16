package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"georep/internal/filter"
	"georep/marker"
	"georep/marker/xtime"
	"georep/slave"
)

// filtered is the session's filter, and since when it counts (crawler.Options.FilterSince). The slave has on record under which
// filter its stamps were made; where that is another one, a tick of the marker's clock is taken, later than all of these, and
// put on record first: so no end of this process, and no cut of its power, lets a stamp count for what it does not say. The caller
// holds the slave, so nobody stamps it meanwhile.
func (m *master) filtered(ctx context.Context, c *Config, tree slave.Tree) (taken, error) {
	t, have, err := loadFilter(c, tree)
	sum := xtime.GFID(t.Sum())
	if err != nil || have.GFID == sum {
		return t, err
	}
	if t.since, err = m.tick(ctx, c); err != nil {
		return t, fmt.Errorf("take up the filter: %w", err)
	}
	results, err := tree.Apply(ctx, &slave.Batch{Ops: []slave.Op{{Kind: slave.OpFilter, Record: slave.Record{GFID: sum, Xtime: t.since}}}})
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		return t, fmt.Errorf("put the filter on record on the slave: %w", err)
	}
	c.Logger.Info().Stringer("filter", t).Msg("the filter is another one: all directories are compared once")
	return t, nil
}

// taken is a filter, nil for none, and since when it counts.
type taken struct {
	*filter.Filter
	since xtime.Time
}

// loadFilter makes the session's filter, and gives what the slave has on record. The file of
// patterns is read anew each time. have is zero where none is on record.
func loadFilter(c *Config, tree slave.Reader) (t taken, have slave.Record, err error) {
	have = tree.Info().Filter
	t.since = have.Xtime
	o, err := c.Session.Options()
	if err == nil {
		t.Filter, err = o.Filter.Load()
	}
	return t, have, err
}

// tick takes a tick: of the marker that runs, or is about to, and for a sync of a scan where there
// is none. It waits for a marker that is about to start, for as long as ctx lets it.
func (m *master) tick(ctx context.Context, c *Config) (xtime.Time, error) {
	name := marker.NewTickName()
	for {
		t, err := marker.TakeTick(ctx, m.runtime, name)
		if !errors.Is(err, marker.ErrNotRunning) {
			return t, err
		}
		if c.oneShot {
			err = mark(ctx, *c)
		} else {
			err = waitUntil(ctx, time.Now().Add(poll))
		}
		if err != nil {
			return 0, err
		}
	}
}

// filterToInspect is filtered for a verification, which changes nothing. Where the slave has not been crawled under the filter as it
// is now, no stamp counts.
func filterToInspect(c *Config, tree slave.Reader) (taken, error) {
	t, have, err := loadFilter(c, tree)
	if have.GFID != xtime.GFID(t.Sum()) {
		t.since = math.MaxUint64
	}
	return t, err
}
