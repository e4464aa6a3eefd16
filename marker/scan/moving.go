package scan

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/marker/moment"
	"georep/marker/tree"
)

// This file is about directories that move while a scan runs. What changed in one while no marker ran, or where no event
// tells, a scan has to find; but one that moves meanwhile may be where the scan has been, or not any more where it comes.

// Movers are the directories that moved while a scan runs, which goes to them once it has been everywhere else. They may be
// used from any goroutine.
type Movers struct {
	mu sync.Mutex
	// on, dirs and many are of the scan that is under way; between scans nothing is noted.
	on   bool
	all  bool // the scan marks all that lies in them
	dirs map[beneath.HandleKey]struct{}
	many bool // more than maxMovers, or one that is not known
}

// maxMovers bounds them; beyond it the scan is made once more.
const maxMovers = 1 << 16

// Begin says that a scan begins. all: it marks everything that lies in them.
func (m *Movers) Begin(all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.all, m.many, m.dirs = true, all, false, map[beneath.HandleKey]struct{}{}
}

// End says that the scan has ended.
func (m *Movers) End() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.dirs = false, nil
}

// Add notes one; "" is one that is not known. It tells whether the scan will mark all that lies in it.
func (m *Movers) Add(k beneath.HandleKey) bool {
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

// drain gives those since it was last called; ok is false where that is not all of them.
func (m *Movers) drain() (dirs map[beneath.HandleKey]struct{}, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dirs, m.dirs = m.dirs, map[beneath.HandleKey]struct{}{}
	return dirs, !m.many
}

// Back gives back some of what a scan took, which it could not go to yet.
func (m *Movers) Back(dirs []beneath.HandleKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range dirs {
		m.dirs[k] = struct{}{}
	}
}

// Progress tells up to which moment all events are read. It may be used from any goroutine.
type Progress struct {
	mu   sync.Mutex
	upTo moment.Moment
	more chan struct{} // closed when it moves; nil where nobody waits
}

// Move says that all events from before m are read.
func (p *Progress) Move(m moment.Moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.upTo = m
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

// Reached is that moment.
func (p *Progress) Reached() moment.Moment {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.upTo
}

// wait waits until all is read that happened before m. It returns ctx's error if ctx ends first.
// Any number may wait.
func (p *Progress) wait(ctx context.Context, m moment.Moment) error {
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

// MeetMovers is the end of a scan that events accompany. A directory that the scan did not meet
// moved, or lies in one that did; so once all is read, and it has met those that moved, it has met
// all there were at its begin. Where moves never end it gives up: the scan counts as incomplete,
// and is repeated. The error is one that ends the scan.
func (s *Scan) MeetMovers(ctx context.Context) error {
	for tries := moverTries; !s.Incomplete.Load(); {
		if err := s.UpTo.wait(ctx, moment.Now()); err != nil {
			return err
		}
		dirs, ok := s.Moving.drain()
		if !ok {
			s.Incomplete.Store(true)
		}
		for k := range dirs {
			s.Moved[k] = struct{}{}
		}
		before := s.older.Load()
		left, err := s.RunIn(ctx, dirs)
		if err != nil {
			return err
		}
		if len(left) == 0 && s.older.Load() == before {
			return nil
		}
		if tries--; tries == 0 {
			s.Incomplete.Store(true)
		}
		s.Moving.Back(left)
	}
	return nil
}

// moverTries bounds how often what moved is looked for; each time all events are read before. Where directories are moved
// all the time it ends all the same, and begins anew.
const moverTries = 100

// RunIn scans directories, wherever in the volume they are now. left are those of which that is not
// known. A directory that does not lie in the volume any more is passed over. One that cannot be
// reached makes the scan incomplete.
func (s *Scan) RunIn(ctx context.Context, dirs map[beneath.HandleKey]struct{}) (left []beneath.HandleKey, err error) {
	g, ctx := s.goroutines(ctx)
	for k := range dirs {
		d, err := s.Marker.Reopen(k)
		if errors.Is(err, ErrStale) {
			if n, known := s.Marker.Number(k); !known || !s.Cover.IsMet(n) {
				left = append(left, k)
			}
			continue
		}
		inside := false
		if err == nil {
			if inside, err = s.Inside(d); err != nil || !inside {
				d.Close()
			}
		}
		switch tree.Judge(err, tree.Unseen) {
		case tree.Again:
			s.Marker.Say("a directory that moved", err, "a scan could not go to a directory that moved, and will be repeated")
			s.Incomplete.Store(true)
		case tree.Done:
			if inside {
				g.Go(func() error { return s.visit(ctx, d, s.All) })
			}
		}
	}
	return left, g.Wait()
}

// goroutines is for a part of a scan. It allows as many as there are processors. The context ends
// with the first error.
func (s *Scan) goroutines(ctx context.Context) (*errgroup.Group, context.Context) {
	s.group, ctx = errgroup.WithContext(ctx)
	s.group.SetLimit(runtime.GOMAXPROCS(0))
	return s.group, ctx
}
