package monitor

import (
	"github.com/rs/zerolog"

	"georep/internal/events"
)

// maxBacklog bounds the events that wait for a disk that takes nothing.
const maxBacklog = 1000

// scribe writes what has happened into the session's journal. A disk that takes nothing holds nothing up: events wait in
// memory, and beyond a bound the oldest are lost, which leaves a gap in the numbers.
type scribe struct {
	journal *events.Journal
	backlog []events.Event
	log     zerolog.Logger
	failing bool // that was said
}

// write takes new events and writes all that wait.
func (s *scribe) write(list []events.Event) {
	s.backlog = append(s.backlog, list...)
	if more := len(s.backlog) - maxBacklog; more > 0 {
		s.journal.Skip(more)
		s.backlog = append(s.backlog[:0], s.backlog[more:]...)
	}
	for len(s.backlog) > 0 {
		if _, err := s.journal.Append(s.backlog[0]); err != nil {
			if !s.failing {
				s.log.Error().Err(err).Msg("what happens is not noted for now")
			}
			s.failing = true
			return
		}
		s.backlog, s.failing = s.backlog[1:], false
	}
	s.backlog = nil
}
