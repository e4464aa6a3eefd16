package marker

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/inotify"
	"georep/marker/moment"
)

// This file is about directories that move while a scan runs. What changed in one while no marker ran, or where no event
// tells, a scan has to find; but one that moves meanwhile may be where the scan has been, or not any more where it comes.

// movers are the directories that moved while a scan runs, which goes to them once it has been everywhere else. They may be
// used from any goroutine.
type movers struct {
	mu   sync.Mutex
	on   bool
	all  bool // the scan marks all that lies in them
	dirs map[beneath.HandleKey]struct{}
	many bool // more than maxMovers, or one that is not known
}

// maxMovers bounds them; beyond it the scan is made once more.
const maxMovers = 1 << 16

func (m *movers) begin(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.all, m.many, m.dirs = true, all, false, map[beneath.HandleKey]struct{}{}
}

func (m *movers) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.dirs = false, nil
}

// add notes one; "" is one that is not known. It tells whether the scan will mark all that lies in it.
func (m *movers) add(k beneath.HandleKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !m.on:
		return false
	case k == "" || len(m.dirs) >= maxMovers:
		m.many = true
		return false
	}
	m.dirs[k] = struct{}{}
	return m.all
}

// take gives those since it was last called; ok is false where that is not all of them.
func (m *movers) take() (dirs map[beneath.HandleKey]struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dirs, m.dirs = m.dirs, map[beneath.HandleKey]struct{}{}
	return dirs, !m.many
}

// back gives back what take gave.
func (m *movers) back(dirs []beneath.HandleKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range dirs {
		m.dirs[k] = struct{}{}
	}
}

// progress tells up to which moment all events are read. It may be used from any goroutine.
type progress struct {
	mu   sync.Mutex
	upTo moment.Moment
	more chan struct{} // closed when it moves; nil where nobody waits
}

func (p *progress) move(m moment.Moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upTo = m
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

// reached is that moment.
func (p *progress) reached() moment.Moment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upTo
}

// wait waits until all is read that happened before m.
func (p *progress) wait(ctx context.Context, m moment.Moment) error {
	for {
		p.mu.Lock()
		if p.upTo.Boot() >= m.Boot() {
			p.mu.Unlock()
			return nil
		}
		if p.more == nil {
			p.more = make(chan struct{})
		}
		more := p.more
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// meetMovers is the end of a scan that events accompany. A directory that the scan did not meet moved, or lies in one that
// did; so once all is read, and it has met those that moved, it has met all there were at its begin.
func (m *marker) meetMovers(ctx context.Context, s *scan) error {
	for tries := moverTries; !s.incomplete.Load(); {
		if err := m.upTo.wait(ctx, moment.Now()); err != nil {
			return err
		}
		dirs, ok := m.moving.take()
		if !ok {
			s.incomplete.Store(true)
		}
		for k := range dirs {
			s.moved[k] = struct{}{}
		}
		before := s.older.Load()
		left, err := s.runIn(ctx, dirs)
		if err != nil {
			return err
		}
		if len(left) == 0 && s.older.Load() == before {
			return nil
		}
		if tries--; tries == 0 {
			s.incomplete.Store(true)
		}
		m.moving.back(left)
	}
	return nil
}

// moverTries bounds how often what moved is looked for; each time all events are read before. Where directories are moved
// all the time it ends all the same, and begins anew.
const moverTries = 100

// runIn scans directories, wherever in the volume they are now. left are those of which that is not known.
func (s *scan) runIn(ctx context.Context, dirs map[beneath.HandleKey]struct{}) (left []beneath.HandleKey, err error) {
	g, ctx := s.goroutines(ctx)
	for k := range dirs {
		d, err := s.tree.reopen(k)
		if errors.Is(err, inotify.ErrStale) {
			if n, known := s.tree.number(k); !known || !s.cover.isMet(n) {
				left = append(left, k)
			}
			continue
		}
		inside := false
		if err == nil {
			if inside, err = s.inside(d); err != nil || !inside {
				d.Close()
			}
		}
		switch judge(err, unseen) {
		case again:
			s.say("a directory that moved", err, "a scan could not go to a directory that moved, and will be repeated")
			s.incomplete.Store(true)
		case done:
			if inside {
				g.Go(func() error { return s.visit(ctx, d, s.all) })
			}
		}
	}
	return left, g.Wait()
}

// beginScan prepares a scan. all: it marks everything that it meets.
func (m *marker) beginScan(all bool) *scan {
	m.cover.begin()
	if m.follows() {
		m.moving.begin(all)
	}
	return &scan{core: m.core, all: all, moved: map[beneath.HandleKey]struct{}{}, started: time.Now()}
}

// endScan ends it, given what it was, how many arrivals there were before it met them, and how it went. What was marked
// because a directory had not been covered is on the device before it counts as that: no ctime would tell of it.
func (m *marker) endScan(s *scan, e extent, upTo int, err error) error {
	if err == nil && !s.incomplete.Load() && m.unsynced.Load() {
		err = m.root.Syncfs()
		m.unsynced.Store(err != nil)
	}
	complete := err == nil && !s.incomplete.Load()
	m.core.mu.Lock()
	defer m.core.mu.Unlock()
	m.moving.end()
	if !complete {
		e = nothing
	}
	if first := m.earliest.Load(); !complete && s.all && first != nil {
		for k := range s.moved {
			if _, waits := m.arrivals[k]; !waits { // it may come out of one that does
				m.arrive(k, *first)
			}
		}
	}
	var first *moment.Moment
	for k, a := range m.arrivals {
		if e == parts && a.n <= upTo {
			delete(m.arrivals, k)
		} else {
			m.leaves(k)
			first = earlier(first, a)
		}
	}
	m.earliest.Store(first) // at once: the heartbeat must not meet one that forgets those that wait
	m.cover.end(e)
	m.owing.Store(m.owes())
	return err
}

// goroutines is for a part of a scan.
func (s *scan) goroutines(ctx context.Context) (*errgroup.Group, context.Context) {
	s.group, ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(runtime.GOMAXPROCS(0))
	return s.group, ctx
}
