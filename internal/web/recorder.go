package web

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/history"
	"georep/volume"
)

// sparkSlots is how many samples of a session's lag are kept for the list of all: ten minutes.
const sparkSlots = 60

// historyFile is a session's history, below its directory.
func historyFile(f volume.Files) string { return filepath.Join(f.Dir, "history") }

// recorder samples all sessions into their histories.
type recorder struct {
	source *source
	log    zerolog.Logger

	mu      sync.Mutex // guards sparks
	sparks  map[string][]float64
	writers map[string]*history.Writer // nil: another process writes it
	said    map[string]bool            // of which trouble was told
}

func newRecorder(s *source, log zerolog.Logger) *recorder {
	return &recorder{source: s, log: log, sparks: map[string][]float64{}, writers: map[string]*history.Writer{}, said: map[string]bool{}}
}

// run samples until ctx ends.
func (r *recorder) run(ctx context.Context) {
	tick := time.NewTicker(history.Every)
	defer tick.Stop()
	defer r.close()
	for {
		r.record(r.source.snapshot())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// record takes one sample of each session.
func (r *recorder) record(s *Snapshot) {
	known := map[string]bool{}
	for _, one := range s.Sessions {
		known[one.ID] = true
		r.recordOne(one, s.Time)
	}
	for id, w := range r.writers {
		if known[id] {
			continue
		}
		if w != nil {
			w.Close()
		}
		delete(r.writers, id)
		delete(r.said, id)
		r.mu.Lock()
		delete(r.sparks, id)
		r.mu.Unlock()
	}
}

func (r *recorder) recordOne(one *Session, now time.Time) {
	path := historyFile(r.source.store.Files(one.Master, one.Slave))
	r.spark(one, path, now)
	w := r.writers[one.ID]
	if w == nil {
		var err error
		if w, err = history.Open(path); err != nil {
			r.writers[one.ID] = nil
			if !errors.Is(err, history.ErrBusy) {
				r.trouble(one, err)
			}
			return
		}
		r.writers[one.ID] = w
	}
	if err := w.Add(now, sample(&one.Status)); err != nil {
		r.trouble(one, err)
		return
	}
	delete(r.said, one.ID)
}

// trouble is told once: a full disk would fill the log, too.
func (r *recorder) trouble(one *Session, err error) {
	if !r.said[one.ID] {
		r.said[one.ID] = true
		r.log.Warn().Err(err).Str("session", one.Master+" "+one.Slave.String()).Msg("the session's history is not written")
	}
}

// spark keeps the latest lags in memory. They begin with what the history has.
func (r *recorder) spark(one *Session, path string, now time.Time) {
	r.mu.Lock()
	list, known := r.sparks[one.ID]
	r.mu.Unlock()
	if !known {
		points, err := history.Read(path, now, history.Hour)
		if err == nil {
			for _, p := range points[len(points)-sparkSlots:] {
				list = append(list, p.Max[history.Lag])
			}
		}
		for len(list) < sparkSlots {
			list = append(list, math.NaN())
		}
	}
	list = append(append([]float64{}, list[len(list)-sparkSlots+1:]...), sample(&one.Status)[history.Lag])
	r.mu.Lock()
	r.sparks[one.ID] = list
	r.mu.Unlock()
}

// lags are the latest of a session, oldest first; NaN where nothing is known.
func (r *recorder) lags(id string) []float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sparks[id]
}

func (r *recorder) close() {
	for _, w := range r.writers {
		if w != nil {
			w.Close()
		}
	}
}
