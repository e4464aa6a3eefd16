package sftp

import (
	"encoding/binary"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// maxListing bounds the memory of a listing that is kept: some 300,000 entries. maxListings is for all that are being made, and for
// the one that is kept.
const (
	maxListing  = 16 << 20
	maxListings = 24 << 20
)

// listing is what a server lists of a large directory, kept for its other parts: else each part would have all of it listed
// again. What this session changed since it began is looked at anew.
type listing struct {
	path   string
	record slave.Record // of the directory, read before it was listed
	// mu guards all below it.
	mu      sync.Mutex
	sum     *atomic.Int64       // of the texts of all
	text    []byte              // entries, encoded
	total   int64               // how many there are
	changed map[string]struct{} // names
	stale   bool                // the directory itself was changed, or too much in it
	// parts is in how many parts it is asked for, 0 before the first; those below next were given.
	parts, next uint32
}

// listings are the one that is kept and those that are being made. The zero value is ready.
type listings struct {
	sum    atomic.Int64 // bytes of all texts
	mu     sync.Mutex
	kept   *listing
	making map[*listing]struct{}
}

// begin makes one that takes note of changes from now on; keep or drop must follow.
func (l *listings) begin(path string, record slave.Record) *listing {
	one := &listing{path: path, record: record, sum: &l.sum, changed: map[string]struct{}{}}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.making == nil {
		l.making = map[*listing]struct{}{}
	}
	l.making[one] = struct{}{}
	return one
}

// end keeps a listing in the place of the one before, or drops it, and with it an older one of the same directory.
func (l *listings) end(one *listing, keep bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.making, one)
	old := l.kept
	if keep {
		l.kept = one
	} else if old != nil && old.path == one.path {
		l.kept = nil
	}
	if !keep && one != l.kept {
		one.forget()
	}
	if old != nil && old != l.kept {
		old.forget()
	}
}

// of gives the one of a directory that still has this record, nil where there is none.
func (l *listings) of(path string, record slave.Record) *listing {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept == nil || l.kept.path != path || l.kept.record != record {
		return nil
	}
	return l.kept
}

// changing notes that the entry at path is about to be changed, or was.
func (l *listings) changing(path string) {
	dir, name := beneath.Split(path)
	l.mu.Lock()
	defer l.mu.Unlock()
	for one := range l.making {
		one.changing(path, dir, name)
	}
	if l.kept != nil {
		l.kept.changing(path, dir, name)
	}
}

func (l *listing) changing(path, dir, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case dir == l.path && l.parts > 0 && slave.PartOf(name, l.parts) < l.next: // it is not asked for any more
	case dir == l.path:
		l.changed[name] = struct{}{}
		l.stale = l.stale || len(l.changed) > slave.MaxEntries
	case path == l.path || strings.HasPrefix(l.path, path+"/"):
		l.stale = true
	}
	if l.stale {
		l.drop()
		l.changed = map[string]struct{}{}
	}
}

// forget gives back what a listing takes that is not kept any more.
func (l *listing) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stale = true
	l.drop()
}

// drop lets the text go. mu is held.
func (l *listing) drop() {
	l.sum.Add(-int64(cap(l.text)))
	l.text = nil
}

// add keeps an entry, as long as there is room.
func (l *listing) add(n wire.Name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if l.stale {
		return
	}
	a := &n.Attrs
	b := append(binary.AppendUvarint(l.text, uint64(len(n.Name))), n.Name...)
	for _, v := range []uint64{uint64(a.Flags), uint64(a.Size), uint64(a.Mode), uint64(a.UID), uint64(a.GID), uint64(a.Mtime)} {
		b = binary.AppendUvarint(b, v)
	}
	all := l.sum.Add(int64(cap(b) - cap(l.text)))
	if l.text = b; len(b) > maxListing || all > maxListings {
		l.stale = true
		l.drop()
	}
}

// part gives the entries of a part and the names in it that have to be looked at; false where it has to be listed again.
func (l *listing) part(part, parts uint32) (listed map[string]wire.Attrs, again []string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.parts == 0 {
		l.parts = parts
	}
	if l.stale || l.parts != parts || part < l.next {
		return nil, nil, false
	}
	if part == l.next {
		l.next++
	}
	listed = map[string]wire.Attrs{}
	b := l.text
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	for len(b) > 0 {
		n := number()
		name := b[:n]
		b = b[n:]
		a := wire.Attrs{Flags: uint32(number()), Size: int64(number()), Mode: uint32(number()), UID: uint32(number()),
			GID: uint32(number()), Mtime: uint32(number())}
		if len(listed) <= slave.MaxEntries && slave.PartOf(string(name), parts) == part {
			listed[string(name)] = a
		}
	}
	for name := range l.changed {
		if slave.PartOf(name, parts) == part {
			again = append(again, name)
			delete(listed, name)
		}
	}
	return listed, again, true
}

// given notes that a part is known, and those before it.
func (l *listing) given(part, parts uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parts, l.next = parts, part+1
}

// over tells whether all parts were given.
func (l *listing) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.parts > 0 && l.next == l.parts
}

// fromKept has a part from the listing that is kept; false where there is none.
func (s *survey) fromKept() (ok bool, err error) {
	kept := s.r.listings.of(s.q.Path, s.state.Record)
	if kept == nil || s.q.Parts <= 1 {
		return false, nil
	}
	s.r.largeListings <- struct{}{}
	s.large = true
	listed, again, ok := kept.part(s.q.Part, s.q.Parts)
	if !ok {
		return false, nil
	}
	if kept.over() {
		s.r.listings.end(kept, false)
	}
	s.listed, s.state.Total, s.state.Truncated = listed, kept.total, len(listed) > slave.MaxEntries
	var mu sync.Mutex
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	for _, name := range again {
		g.Go(func() error {
			a, err := s.r.lstat(beneath.Join(s.q.Path, name))
			if noFile(err) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			s.listed[name] = a
			return err
		})
	}
	return true, g.Wait()
}
