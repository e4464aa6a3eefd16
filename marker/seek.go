package marker

import (
	"sync"
	"sync/atomic"
)

// seeker is what scans are asked to look for beside what changed: inodes that were written, and whose names nobody knows.
// A scan marks whatever name it meets. It may be used from any goroutine.
type seeker struct {
	// byNumber: a listing has the numbers that stat gives.
	byNumber bool
	count    atomic.Int64 // of those that are looked for; a scan asks for each entry

	mu      sync.Mutex
	sought  map[inode]*sought
	numbers map[uint64]int // how many of sought have that number
}

// sought is one inode.
type sought struct {
	begun bool // the scan that is under way began later
	met   bool
	done  bool
	path  string // "" where it is too long to be known
}

// ask has the next scan look for an inode.
func (s *seeker) ask(k inode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sought == nil {
		s.sought, s.numbers = map[inode]*sought{}, map[uint64]int{}
	}
	if s.sought[k] == nil {
		s.sought[k] = &sought{}
		s.numbers[k.ino]++
		s.count.Add(1)
	}
}

// any tells whether a scan is needed.
func (s *seeker) any() bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sought {
		if !one.done {
			return true
		}
	}
	return false
}

// begin says that a scan of the whole tree begins.
func (s *seeker) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sought {
		one.begun = true
	}
}

// end says that it is over, and met everything.
func (s *seeker) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sought {
		one.done = one.done || one.begun
	}
}

// wants tells whether the inode of that number in a listing has to be looked at.
func (s *seeker) wants(number uint64) bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.byNumber || s.numbers[number] > 0
}

// meet notes a name of an inode, and tells whether it is looked for.
func (s *seeker) meet(k inode, path string) bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sought[k]
	if one == nil || !one.begun {
		return false
	}
	one.met, one.path = true, path
	return true
}

// answer gives what was found once the search is over, and forgets it.
func (s *seeker) answer(k inode) (path string, met, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sought[k]
	if one == nil || !one.done {
		return "", false, one == nil
	}
	delete(s.sought, k)
	if s.numbers[k.ino]--; s.numbers[k.ino] == 0 {
		delete(s.numbers, k.ino)
	}
	s.count.Add(-1)
	return one.path, one.met, true
}
