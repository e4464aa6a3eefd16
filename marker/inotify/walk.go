package inotify

// walkAll begins to find out anew where every directory is. A scan follows. A walk that is under way is finished first:
// where the queue overflows again and again, it would never end.
func (s *Source) walkAll() {
	a := &s.adopt
	if a.walking {
		a.again = true
		return
	}
	a.gen++
	a.walking, a.stuck = true, 0
	clear(a.waiting)
	clear(a.places)
	clear(a.doubts)
	a.swamped = false
	clear(a.suspects)
	s.tree.root.gen = a.gen
	a.tasks = append(a.tasks[:0], task{id: s.tree.root.id})
}

// stuckEpochs is how long the end of a walk waits for the rest of it.
const stuckEpochs = 5

// endWalk ends a walk that has met everything: what it did not meet has lost its place, unless an event tells. One that
// cannot read a directory ends too, for the sake of the others; another scan follows then when that one was read.
func (s *Source) endWalk() {
	a := &s.adopt
	left := len(a.waiting)+len(a.places) > 0
	if !a.walking {
		if a.partial && !left {
			a.partial = false
			s.ask(Lost)
		}
		return
	}
	if left && a.stuck == 0 {
		a.stuck = s.epoch
	}
	if left && s.epoch-a.stuck < stuckEpochs {
		return
	}
	for _, n := range s.tree.byID {
		if !left && n.gen != a.gen && n.parent != nil && n.parent.gen == a.gen {
			s.tree.lose(n, s.now())
		}
	}
	a.walking, a.partial = false, left
	s.ask(Lost)
	if a.again {
		a.again = false
		s.walkAll()
	}
}
