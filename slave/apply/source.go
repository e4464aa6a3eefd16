package apply

import "georep/slave"

// Source chooses what an OpLink links to, among the names of its inode. T is what the slave has of a candidate. The path
// that the operation names comes first and is taken as it is; of all others the newest state is the best. It is one
// goroutine's.
type Source[T any] struct {
	Op *slave.Op
	// Best is the source, once Found.
	Best  T
	Found bool
	state slave.Record
}

// From is the path that the operation names, where that can be a source.
func (s *Source[T]) From() (path string, named bool) {
	return s.Op.From, s.Op.From != "" && s.Op.From != s.Op.Path
}

// Fits tells whether an entry of this kind can be the source.
func (s *Source[T]) Fits(kind slave.Kind) bool {
	return s.Op.Entry == slave.Unknown || kind == s.Op.Entry
}

// Better tells whether the name at path would be better than the best so far, if it leads to this state: whoever has to ask for what a
// name leads to need not ask for the others.
func (s *Source[T]) Better(path string, state slave.Record) bool {
	return path != s.Op.Path && (!s.Found || Newer(state, s.state, s.Op.Record))
}

// Take makes a candidate the best.
func (s *Source[T]) Take(candidate T, state slave.Record) {
	s.Best, s.state, s.Found = candidate, state, true
}

// Enough tells that no other can be better: an inode may have thousands of names, of which the others need not be looked at.
func (s *Source[T]) Enough() bool { return s.Found && s.state.Xtime == s.Op.Record.Xtime }
