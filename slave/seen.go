package slave

import "sync/atomic"

// Seen is how far a long work on a slave is. It may be read meanwhile, by anybody. The nil Seen counts nothing.
type Seen struct {
	entries, bytes atomic.Int64
}

// Add counts entries that are done, and bytes of their content.
func (s *Seen) Add(entries, bytes int64) {
	if s == nil {
		return
	}
	s.entries.Add(entries)
	s.bytes.Add(bytes)
}

// Sum is what was counted so far.
func (s *Seen) Sum() (entries, bytes int64) { return s.entries.Load(), s.bytes.Load() }
