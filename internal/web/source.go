package web

import (
	"errors"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"georep/internal/health"
	"georep/internal/history"
	"georep/marker"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// freshFor is how long what was read is good for other requests, too. Monitors write each second or so.
const freshFor = time.Second

// Session is one as it stood when the source read it.
type Session struct {
	ID string // its uuid: what it is called in addresses
	volume.Session
	Status  status.Status
	Verdict health.Verdict
}

// Master is a volume that sessions replicate, with what its marker says.
type Master struct {
	Name   string
	Marker marker.Status
	Known  bool // there is a marker that lives
}

// Snapshot is all that is known at a moment. It is shared, and not to be written to.
type Snapshot struct {
	Time     time.Time
	Sessions []*Session // those in trouble first
	Masters  []Master
	Err      error // what could not be read
}

// find gives a session by its id, or nil.
func (s *Snapshot) find(id string) *Session {
	for _, one := range s.Sessions {
		if one.ID == id {
			return one
		}
	}
	return nil
}

// source reads the registry and what processes have written. It is safe for concurrent use.
type source struct {
	store *volume.Store
	now   func() time.Time

	mu      sync.Mutex
	last    *Snapshot
	markers map[string]*marker.StatusReader
	readers map[string]*status.Reader // by the file
	reads   atomic.Int64              // of files and directories, for tests: how often something was read anew
}

func newSource(o *Options) *source {
	now := o.now
	if now == nil {
		now = time.Now
	}
	return &source{store: o.Store, now: now, markers: map[string]*marker.StatusReader{}, readers: map[string]*status.Reader{}}
}

// snapshot is at most a second old. Requests that come together wait for one reading.
func (s *source) snapshot() *Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.last != nil {
		if age := now.Sub(s.last.Time); age >= 0 && age < freshFor {
			return s.last
		}
	}
	s.last = s.read(now)
	return s.last
}

func (s *source) read(now time.Time) *Snapshot {
	s.reads.Add(1)
	out := &Snapshot{Time: now}
	list, err := s.store.Sessions()
	out.Sessions = make([]*Session, len(list))
	errs := make([]error, len(list), len(list)+1)
	s.readAll(list, out.Sessions, errs)
	errs = append(errs, err)
	seen := map[string]bool{}
	for _, each := range list {
		if !seen[each.Master] {
			seen[each.Master] = true
			out.Masters = append(out.Masters, s.master(each.Master))
		}
	}
	for name := range s.markers {
		if !seen[name] {
			delete(s.markers, name)
		}
	}
	health.Sort(out.Sessions, func(x *Session) (*status.Status, *health.Verdict) { return &x.Status, &x.Verdict })
	out.Err = errors.Join(errs...)
	return out
}

// readAll reads how all stand, on every processor.
func (s *source) readAll(list []volume.Session, out []*Session, errs []error) {
	readers := make(map[string]*status.Reader, len(list))
	of := make([]*status.Reader, len(list))
	for i, each := range list {
		file := s.store.Files(each.Master, each.Slave).Status
		if of[i] = s.readers[file]; of[i] == nil {
			of[i] = new(status.Reader)
		}
		readers[file] = of[i]
	}
	s.readers = readers
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(list)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(list)); i = next.Add(1) - 1 {
				out[i], errs[i] = s.session(of[i], list[i])
			}
		})
	}
	wg.Wait()
}

// session reads how one stands.
func (s *source) session(r *status.Reader, each volume.Session) (*Session, error) {
	st, err := monitor.StatusBy(r, s.store, each)
	return &Session{ID: each.UUID, Session: each, Status: st, Verdict: health.Of(st, err, health.Limits{})}, err
}

func (s *source) master(name string) Master {
	dir := s.store.Runtime(name).Dir
	r := s.markers[name]
	if r == nil {
		r = marker.NewStatusReader(dir)
		s.markers[name] = r
	}
	st, err := r.Read()
	return Master{Name: name, Marker: st, Known: err == nil && marker.Alive(dir)}
}

// sample is what the history keeps of a status.
func sample(st *status.Status) history.Sample {
	lag := math.NaN()
	if d, known := st.Lag(); known {
		lag = d.Seconds()
	}
	out := history.Sample{}
	out[history.Lag], out[history.Rate] = lag, st.Rates.BytesContent
	out[history.Pending], out[history.Entries] = float64(st.Pending.Bytes), float64(st.Pending.Entries)
	return out
}
