// Package history keeps how a session went: its lag, its rate and what was pending, over an hour, a day and a week, in one file of
// fixed size beside the session's status.
//
// The file has a ring of records for each span. A record is of one slot of time: a number of seconds of the clock, numbered
// from 1970. It has the sum, the count and the greatest of the samples in it. The slot's number tells where in its ring it
// lies, so nothing else has to be kept, and nothing has to be written in order. A record is written as a whole, and has a checksum:
// what a crash or a power cut left of one counts as no record.
//
// A slot that lies in the future, after the clock was set back, is taken out when it is met: it is of another time than it says.
// Nothing is synced. After a power cut minutes may be missing.
package history

import (
	"math"
	"time"
)

// Series are what is kept.
type Series int

// The series.
const (
	Lag     Series = iota // seconds
	Rate                  // bytes of content a second
	Pending               // bytes to be sent
	Entries               // that are known to differ
	seriesCount
)

// Sample is how a session stands at a moment. NaN stands for what is not known. It is indexed by
// Series.
type Sample [seriesCount]float64

// Span is a length of time that can be looked back over.
type Span int

// The spans.
const (
	Hour Span = iota
	Day
	Week
	spanCount
)

// ring is how a span is kept.
type ring struct {
	step  int64 // seconds
	slots int64
}

// A file with other rings would be another format; the magic number in file.go would have to change
// with them.
var rings = [spanCount]ring{Hour: {10, 360}, Day: {120, 720}, Week: {900, 672}}

// Every is how often a sample is due: once in the finest slot.
const Every = 10 * time.Second

// Step is the length of a slot.
func (s Span) Step() time.Duration { return time.Duration(rings[s].step) * time.Second }

// Length is how far back the span reaches.
func (s Span) Length() time.Duration { return s.Step() * time.Duration(rings[s].slots) }

// Point is one slot. Values are NaN where nothing is known. Avg and Max are over the samples in the
// slot, of which there are usually step/10.
type Point struct {
	Time time.Time // at which it begins
	Avg  Sample
	Max  Sample
}

// nothing is a sample of which nothing is known.
func nothing() (s Sample) {
	for i := range s {
		s[i] = math.NaN()
	}
	return s
}
