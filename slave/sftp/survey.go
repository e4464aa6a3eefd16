package sftp

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// surveysAtOnce is how many directories are read at the same time.
const surveysAtOnce = 64

// reader is what only looks.
type reader struct {
	*records
	listings *listings
	// largeListings has a word for each large directory that is being read, hashing for each file that is read back.
	largeListings, hashing chan struct{}
}

// newReader makes a reader, and all that it stands on, of which nothing is open yet.
func newReader(o Options) *reader {
	ses := &session{life: newLife(), host: &host{}, log: o.Logger, o: o, prefix: rand.Text()[:8]}
	return &reader{records: &records{abilities: &abilities{space: &space{session: ses}}}, listings: &listings{},
		largeListings: make(chan struct{}, largeAtOnce), hashing: make(chan struct{}, hashesAtOnce)}
}

// Survey reads directories, many at the same time.
func (rd *reader) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	if err := rd.enter(); err != nil {
		return nil, err
	}
	defer rd.leave()
	all := make([]slave.DirState, len(queries))
	var weight atomic.Int64 // of the answers so far: once they are more than is given, no more are asked for
	g := new(errgroup.Group)
	g.SetLimit(surveysAtOnce)
	asked := 0
	for i, q := range queries {
		if weight.Load() > slave.MaxSurvey {
			break
		}
		asked = i + 1
		g.Go(func() error {
			if err := rd.live(ctx); err != nil {
				return err
			}
			all[i] = rd.survey(q)
			weight.Add(all[i].Weight())
			return rd.first().Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all = all[:asked]
	return all[:slave.Within(all, slave.MaxSurvey, (*slave.DirState).Weight)], nil
}

// survey answers one query; what keeps a directory from being read is in the answer.
func (rd *reader) survey(q slave.Query) slave.DirState {
	if !q.Valid() {
		return slave.DirState{Err: trouble("survey", q.Path, slave.ErrInvalid)}
	}
	s := &survey{r: rd, q: q}
	defer s.end()
	if err := s.run(); err != nil {
		return slave.DirState{Err: trouble("survey", q.Path, rd.reason(err))}
	}
	if s.state.Weight() > slave.MaxSurvey {
		s.state.Entries, s.state.Truncated = nil, true
	}
	return s.state
}

// survey is one directory being read.
type survey struct {
	r *reader
	q slave.Query
	// id is the directory's shard, 0 where it has none; listed is what the server lists of it, of this part.
	id     index.ID
	state  slave.DirState
	listed map[string]wire.Attrs
	size   int64 // that listed takes, roughly
	large  bool  // it has a place among the large ones
}

// The names that a server lists are in memory while a directory is read. Small directories are read as they come, large ones a few at a
// time: a server may say that each is as large as may be.
const (
	smallListing = 192 << 10 // bytes
	largeAtOnce  = 4
	nameCost     = 128 // of a listed name, besides its own length
)

// errTurn ends a listing that turns out to be a large one among many. It begins anew in its turn, and holds nothing until then.
var errTurn = errors.New("large listings wait for their turn")

// grows counts a listed name. It tells whether there is room: what is more than twice an answer's bound is too much for the answer.
func (s *survey) grows(name string) (room bool, err error) {
	s.size += int64(len(name)) + nameCost
	if s.size > smallListing && !s.large {
		select {
		case s.r.largeListings <- struct{}{}:
			s.large = true
		default:
			return false, errTurn
		}
	}
	return s.size <= 2*slave.MaxSurvey, nil
}

// end gives the place among the large ones back.
func (s *survey) end() {
	if s.large {
		<-s.r.largeListings
		s.large = false
	}
}

// run reads the directory's own record before it is listed, so that it never vouches for entries that came later. The
// directories above it are looked at meanwhile: what turns out to be read through a link is thrown away.
func (s *survey) run() error {
	above := make(chan error, 1)
	go func() { above <- s.r.checkDirs(s.q.Path + "/x") }()
	err := s.read()
	if cause := <-above; cause != nil {
		return cause
	}
	return err
}

// read fills in the state.
func (s *survey) read() (err error) {
	if err := s.r.dirRecord(s.q.Path, &s.state.Record); err != nil {
		return err
	}
	if s.id, err = s.r.idOf(s.q.Path); err != nil {
		return err
	}
	s.state.Copy = slave.Copy(s.id)
	if s.q.ByName {
		return s.byName()
	}
	g := new(errgroup.Group)
	if s.id != 0 {
		g.Go(func() error { return s.r.idx.Preload(s.id) })
	}
	g.Go(s.list)
	if err := g.Wait(); err != nil || s.state.Truncated {
		return err
	}
	return s.join()
}

// list lists the directory, and keeps the listing where it is a part of a large one.
func (s *survey) list() error {
	if have, err := s.fromKept(); have || err != nil {
		return err
	}
	err := s.listAll()
	if errors.Is(err, errTurn) {
		s.r.largeListings <- struct{}{}
		s.large = true
		err = s.listAll()
	}
	return err
}

func (s *survey) listAll() error {
	s.listed, s.size, s.state.Total = map[string]wire.Attrs{}, 0, 0
	tooMany := false
	all := s.r.listings.begin(s.q.Path, s.state.Record)
	err := s.r.list(s.q.Path, func(n wire.Name) error {
		if s.q.Path == "" && n.Name == slave.Reserved {
			return nil
		}
		s.state.Total++
		all.add(n)
		if !tooMany && slave.PartOf(n.Name, s.q.Parts) == s.q.Part {
			s.listed[n.Name] = n.Attrs
			room, err := s.grows(n.Name)
			if err != nil {
				s.listed = nil
				return err
			}
			tooMany = !room || len(s.listed) > slave.MaxEntries
		}
		return nil
	})
	s.state.Truncated = err == nil && tooMany
	more := s.state.Truncated || s.q.Part+1 < s.q.Parts
	if err == nil && more && s.q.Parts > 1 {
		all.given(s.q.Part, s.q.Parts)
	}
	s.r.listings.end(all, err == nil && more)
	return err
}

// byName asks for single names.
func (s *survey) byName() error {
	var mu sync.Mutex
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	for _, name := range s.q.Names {
		if s.q.Path == "" && name == slave.Reserved {
			continue
		}
		g.Go(func() error {
			f, err := s.r.look(place{s.id, beneath.Join(s.q.Path, name), name})
			if err != nil || !f.present() {
				return err
			}
			e := stateOf(name, f.attrs, &f.entry, f.known)
			mu.Lock()
			defer mu.Unlock()
			s.state.Entries = append(s.state.Entries, e)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.targets()
}

// join puts together what is listed and what the index has of it, and adds what the index alone has.
func (s *survey) join() error {
	s.state.Entries = make([]slave.EntryState, 0, len(s.listed))
	err := s.attrsMissing()
	if err == nil && s.id != 0 {
		err = s.r.idx.Each(s.id, func(name string, e index.Entry) bool {
			if slave.PartOf(name, s.q.Parts) != s.q.Part && !e.Virtual {
				return true
			}
			a, there := s.listed[name]
			known := s.r.fits(&e, there, a)
			if e.Virtual && known {
				s.state.Total++
			}
			if (there || known) && slave.PartOf(name, s.q.Parts) == s.q.Part {
				s.state.Entries = append(s.state.Entries, stateOf(name, a, &e, known))
				delete(s.listed, name)
			}
			return true
		})
	}
	if err != nil {
		return err
	}
	for name, a := range s.listed {
		s.state.Entries = append(s.state.Entries, stateOf(name, a, nil, false))
	}
	return s.targets()
}

// attrsMissing asks for attributes that a server leaves out of its listings.
func (s *survey) attrsMissing() error {
	const need = wire.HasSize | wire.HasMode | wire.HasTimes
	var mu sync.Mutex
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	missing := []string{}
	for name, a := range s.listed {
		if a.Flags&need != need {
			missing = append(missing, name)
		}
	}
	for _, name := range missing {
		g.Go(func() error {
			a, err := s.r.lstat(beneath.Join(s.q.Path, name))
			mu.Lock()
			defer mu.Unlock()
			if noFile(err) {
				delete(s.listed, name)
				return nil
			}
			s.listed[name] = a
			return err
		})
	}
	return g.Wait()
}

// stateOf describes one entry: as the master has it where the index knows it, as it stands there otherwise.
func stateOf(name string, a wire.Attrs, e *index.Entry, known bool) slave.EntryState {
	if !known {
		return slave.EntryState{Name: name, Kind: kindOf(a), Mode: a.Mode & 0o7777, UID: a.UID, GID: a.GID, Nlink: 1,
			Size: a.Size, Mtime: beneath.Time{Sec: int64(a.Mtime)}}
	}
	st := slave.EntryState{Name: name, Kind: e.Kind, Record: e.Record, Mode: e.Meta.Mode & 0o7777, UID: e.Meta.UID,
		GID: e.Meta.GID, Nlink: max(e.Links, 1), Size: e.Meta.Size, Mtime: e.Meta.Mtime}
	if e.Kind == slave.Dir {
		st.Copy = slave.Copy(e.ID)
	}
	if e.Kind.Device() {
		st.Rdev = e.Meta.Rdev
	}
	return st
}

// targets reads the links that have no record, as far as there is room for them in an answer: what is beyond is asked for in parts.
func (s *survey) targets() error {
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	var weight atomic.Int64
	weight.Add(s.state.Weight())
	for i := range s.state.Entries {
		e := &s.state.Entries[i]
		if e.Kind != slave.Symlink || e.Record != (slave.Record{}) {
			continue
		}
		if weight.Load() > slave.MaxSurvey {
			break // see survey
		}
		g.Go(func() error {
			target, err := s.r.readlink(beneath.Join(s.q.Path, e.Name))
			e.Target = target
			weight.Add(int64(len(target)))
			return ignoreAbsent(err)
		})
	}
	return g.Wait()
}
