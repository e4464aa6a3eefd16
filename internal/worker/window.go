package worker

import (
	"context"
	"errors"
	"time"

	"georep/crawler"
	"georep/crawler/source"
	"georep/internal/timetable"
	"georep/marker/xtime"
	"georep/status"
)

// errWindow ends a run whose window is over.
var errWindow = errors.New("the window is over")

// windowLook bounds how long the clock is believed, which may be set.
const windowLook = 15 * time.Second

// inWindow runs work while a window is open, by the clock of this host. Outside of all windows it
// runs wait instead, with the time at which the next one begins. Either ends when that changes, and
// the result is nil then. Its error is that of work or wait, or ctx's.
func inWindow(ctx context.Context, w timetable.Windows, work func(context.Context) error,
	wait func(context.Context, time.Time) error,
) error {
	open, until := w.Open(time.Now())
	if until.IsZero() && open {
		return work(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done, change := make(chan error, 1), until
	go func() {
		if open {
			done <- work(ctx)
		} else {
			done <- wait(ctx, until)
		}
	}()
	for {
		select {
		case err := <-done:
			return err
		case <-time.After(min(max(time.Until(change), time.Millisecond), windowLook)):
		}
		now, next := w.Open(time.Now())
		if now != open || !now && !next.Equal(change) {
			cancel(errWindow)
			<-done // it ended for that, or as well
			return nil
		}
		change = next
	}
}

// waitingTick is how often a session that waits says how it stands.
const waitingTick = 5 * time.Second

// waitForWindow reports that the session waits, and how far the slave is behind, until ctx ends.
// The slave is not asked. The marker goes on meanwhile, so the lag that is told is true.
func waitForWindow(ctx context.Context, c Config, t *teller, until time.Time) error {
	m, err := openMaster(ctx, c)
	if err != nil {
		return err
	}
	defer m.Close()
	c.Logger.Info().Time("until", until).Msg("the session waits for its window")
	w := &waiting{at: t.lastKnown(&c), until: until}
	t.begin()
	tick := time.NewTicker(waitingTick)
	defer tick.Stop()
	for told := false; ; told = true {
		x, err := m.Xtime("", ptr(xtime.NamesFor(m.ns, m.uuid)))
		if err != nil {
			return source.RootError(m.volume.Path, err)
		}
		t.waits(w.look(time.Now(), max(x, m.mark()), m.heartbeat()), until)
		if !told { // only now, so that nobody takes it for one that ships
			t.say(func() { t.begun = true })
		}
		select {
		case <-ctx.Done():
			t.waits(w.at, time.Time{})
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// ptr is a pointer to a copy.
func ptr[T any](v T) *T { return &v }

// waiting is what is known of a slave that nobody asks.
type waiting struct {
	at    crawler.Progress
	until time.Time
}

// look goes by the xtime of the master's root. What the slave lacks is as old as the first mark that it lacks, or the time up to
// which it was known to have everything, where nobody saw that mark come.
func (w *waiting) look(now time.Time, root xtime.Time, beat time.Time) crawler.Progress {
	p := &w.at
	if p.LastSynced.After(now) {
		p.LastSynced = time.Time{} // the clock was set back, and must not come up to it
	}
	switch {
	case root == p.Stime && p.Waits == 0:
		p.InStep, p.Behind = true, time.Time{}
		if beat.After(p.LastSynced) && !beat.After(now) {
			p.LastSynced = beat
		}
	case p.InStep:
		p.InStep, p.Behind = false, root.Time()
	case p.Behind.IsZero():
		p.Behind = p.LastSynced
		if p.Behind.IsZero() {
			p.Behind = root.Time()
		}
	}
	return *p
}

// lastKnown is how far the slave was when it was asked last, by this process or an earlier one. A
// status that cannot be read says nothing, and then neither does the session before it has
// connected.
func (t *teller) lastKnown(c *Config) crawler.Progress {
	if t.last.Stime != 0 {
		p := t.last
		p.Crawling, p.Following, p.Failures, p.Failed, p.CaughtUp = false, false, nil, 0, false
		return p
	}
	st, err := status.Read(c.Store.Files(c.Session.Master, c.Session.Slave).Status)
	if err != nil {
		return crawler.Progress{}
	}
	return crawler.Progress{Stime: xtime.Time(st.Stime), LastSynced: st.LastSynced.Time}
}

// waits reports that the session waits for its window, or, where until is zero, that it does no more.
func (t *teller) waits(p crawler.Progress, until time.Time) {
	out := t.withMarker(Progress(p, t.counters, nil, t.wire, t.clock))
	out.Crawl, out.Pending, out.WaitsUntil = status.NoCrawl, status.Pending{}, status.Time{Time: until}
	t.reports.News(out)
}
