package monitor

import (
	"cmp"

	"github.com/rs/zerolog"

	"georep/status"
)

// maxHeld bounds what is remembered of entries that are held back. Further ones are in the status alone.
const maxHeld = 10 * status.MaxFailures

// held remembers which entries were logged as held back, so that each is logged once, and once more when that is over. It is for one
// goroutine.
type held struct {
	logged map[string]*heldEntry // by path
}

type heldEntry struct {
	status.Failure
	worker int // the pid of the one that named it last
}

// tell logs what is new in the status. A worker that begins names nothing before it has met it again: so what another one has named
// is over only when the slave is in step. And of a list that was cut short only what would stand before its end can be missed.
func (h *held) tell(log zerolog.Logger, st *status.Status) {
	if len(st.Failures) == 0 && len(h.logged) == 0 {
		return
	}
	if h.logged == nil {
		h.logged = map[string]*heldEntry{}
	}
	listed := map[string]bool{}
	for _, f := range st.Failures {
		listed[f.Path] = true
		if e := h.logged[f.Path]; e != nil {
			e.Since, e.worker = f.Since, st.WorkerPid
			continue
		}
		if len(h.logged) >= maxHeld {
			continue
		}
		h.logged[f.Path] = &heldEntry{f, st.WorkerPid}
		log.Warn().Str("path", f.Path).Str("op", f.Op).Str("error", f.Error).Msg("an entry is held back")
	}
	inStep := st.FailuresTotal == 0 && st.LagSeconds == 0 && st.Stime != 0
	for path, e := range h.logged {
		if listed[path] || !inStep && (e.worker != st.WorkerPid || !e.missed(st)) {
			continue
		}
		delete(h.logged, path)
		log.Info().Str("path", path).Msg("an entry is held back no more")
	}
}

// missed tells whether the list would have the entry if it were held back still. Lists are in the order of time and path.
func (e *heldEntry) missed(st *status.Status) bool {
	n := len(st.Failures)
	if st.FailuresTotal <= n {
		return true
	}
	if n == 0 {
		return false
	}
	last := st.Failures[n-1]
	return cmp.Or(e.Since.Compare(last.Since.Time), cmp.Compare(e.Path, last.Path)) < 0
}
