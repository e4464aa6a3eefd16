package monitor

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/events"
	"georep/internal/hooks"
)

// maxBacklog bounds the events that wait for a disk that takes nothing.
const maxBacklog = 1000

// scribe writes what has happened into the session's journal. A disk that takes nothing holds
// nothing up: events wait in memory, and beyond a bound the oldest are lost, which leaves a gap in
// the numbers. Hooks that fail are noted by goroutines of their own. Its lock is held over the
// writing, which may block on a disk; nothing else waits for that but the loop.
type scribe struct {
	mu      sync.Mutex
	journal *events.Journal
	backlog []events.Event
	log     zerolog.Logger
	failing bool // that was said
}

// write takes new events and writes all that wait. What cannot be written is tried again with the
// next event, a few seconds later at most.
func (s *scribe) write(list []events.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backlog = append(s.backlog, list...)
	if more := len(s.backlog) - maxBacklog; more > 0 {
		s.journal.Skip(more)
		s.backlog = append(s.backlog[:0], s.backlog[more:]...)
	}
	for len(s.backlog) > 0 {
		if _, err := s.journal.Append(s.backlog[0]); err != nil {
			if !s.failing {
				s.log.Error().Err(err).Msg("events cannot be recorded for now")
			}
			s.failing = true
			return
		}
		s.backlog, s.failing = s.backlog[1:], false
	}
	s.backlog = nil
}

// lastWords is how long a monitor that ends waits for hooks to be told of that.
const lastWords = 3 * time.Second

// startHooks begins to tell the session's hooks. It is called again when a reload changes who is
// told.
func (r *runner) startHooks() {
	c := hooks.Config{Dir: r.files.Dir, Master: r.cfg.Master, Slave: r.cfg.Slave.String(), Hook: r.told, Last: r.scribe.journal.Last()}
	c.Failed = func(hook string, err error) {
		r.log.Warn().Str("hook", hook).Err(err).Msg("a hook is not told for now")
		r.scribe.write([]events.Event{{Kind: events.HookFailed, Master: r.cfg.Master, Slave: r.cfg.Slave.String(), Name: hook,
			Error: err.Error(), Message: "The hook " + hook + " could not be told, and is tried again: " + err.Error()}})
	}
	r.hooks = hooks.Start(c)
	r.hooks.Changed(true, nil, nil) // what others before these were not told of any more
}
