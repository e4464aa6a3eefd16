package crawler

import (
	"georep/marker/xtime"
	"georep/slave"
)

// displace remembers what stands where another inode belongs. moves.mu is held.
func (w *crawl) displace(n *node, s *slave.EntryState) {
	if s != nil && !s.Record.GFID.IsZero() {
		w.displaceAt(s.Record.GFID, stood{join(n.path, s.Name), n.entry.Record.GFID})
	}
}

// stood is a name where an inode stands that belongs elsewhere, and the directory that has the name; zero where that is not known.
type stood struct {
	path string
	dir  xtime.GFID
}

func (w *crawl) displaceAt(g xtime.GFID, at stood) {
	if len(w.moves.displaced) >= maxDisplaced {
		return
	}
	if w.moves.displaced == nil {
		w.moves.displaced = map[xtime.GFID]stood{}
	}
	w.moves.displaced[g] = at
}

func (w *crawl) isDisplaced(g xtime.GFID) bool {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	_, is := w.moves.displaced[g]
	return is
}

// takeDisplaced tells where an inode stands that belongs elsewhere, once.
func (w *crawl) takeDisplaced(g xtime.GFID) (at stood, ok bool) {
	w.moves.mu.Lock()
	defer w.moves.mu.Unlock()
	at, ok = w.moves.displaced[g]
	delete(w.moves.displaced, g)
	return at, ok
}
