package scan

import (
	"sync"
	"sync/atomic"

	"georep/marker/tree"
)

// Seeker is what scans are asked to look for beside what changed: inodes that were written, and whose names nobody knows.
// A scan marks whatever name it meets. It may be used from any goroutine.
type Seeker struct {
	// ByNumber: a listing has the numbers that stat gives.
	ByNumber bool
	count    atomic.Int64 // of those that are looked for; a scan asks for each entry

	mu      sync.Mutex
	sought  map[tree.Inode]*sought
	numbers map[uint64]int // how many of sought have that number
}

// sought is one inode. begun tells that the scan has a chance to meet all of its names: one that
// was asked for in the middle of a scan waits for the next.
type sought struct {
	begun bool // the scan that is under way began later
	met   bool
	done  bool
	path  string // "" where it is too long to be known
}

// Ask has the next scan look for an inode.
func (s *Seeker) Ask(k tree.Inode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sought == nil {
		s.sought, s.numbers = map[tree.Inode]*sought{}, map[uint64]int{}
	}
	if s.sought[k] == nil {
		s.sought[k] = &sought{}
		s.numbers[k.Ino]++
		s.count.Add(1)
	}
}

// Any tells whether a scan is needed. It costs one atomic read as long as nothing is looked for.
func (s *Seeker) Any() bool {
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

// Begin says that a scan of the whole tree begins.
func (s *Seeker) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sought {
		one.begun = true
	}
}

// End says that it is over, and met everything.
func (s *Seeker) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.sought {
		one.done = one.done || one.begun
	}
}

// wants tells whether the inode of that number in a listing has to be looked at.
func (s *Seeker) wants(number uint64) bool {
	if s.count.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.ByNumber || s.numbers[number] > 0
}

// meet notes a name of an inode, and tells whether it is looked for.
func (s *Seeker) meet(k tree.Inode, path string) bool {
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

// Answer gives what was found once the search is over, and forgets it. done without met: a whole
// scan met no name of it, so it has none in the volume. An inode that was not asked for is done.
func (s *Seeker) Answer(k tree.Inode) (path string, met, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.sought[k]
	if one == nil || !one.done {
		return "", false, one == nil
	}
	delete(s.sought, k)
	if s.numbers[k.Ino]--; s.numbers[k.Ino] == 0 {
		delete(s.numbers, k.Ino)
	}
	s.count.Add(-1)
	return one.path, one.met, true
}
