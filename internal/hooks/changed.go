package hooks

import (
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"georep/internal/events"
	"georep/internal/filter"
)

// Changed is the kind of what is told of paths. It is no event: the journal has none of it.
const Changed events.Kind = "changed"

const (
	// maxPaths and maxBytes bound the paths that wait for one hook. Beyond them "all" is told.
	maxPaths = 10000
	maxBytes = 4 << 20
	// pathsAtOnce and bytesAtOnce bound one message.
	pathsAtOnce = 1000
	bytesAtOnce = 1 << 20
)

// pathQueue are the paths that one hook is still to be told of. all stands for every path that came
// before it, so the paths need not be kept then.
type pathQueue struct {
	mu    sync.Mutex
	all   bool
	trees map[string]bool // by path: whether it is a tree
	bytes int             // of these paths
	busy  bool            // some were taken, and are not told yet
	some  chan struct{}
}

// newPathQueue has nothing to tell.
func newPathQueue() *pathQueue {
	return &pathQueue{trees: map[string]bool{}, some: make(chan struct{}, 1)}
}

// add takes paths in. It never waits: beyond the bound it forgets which paths they were, and "all"
// is told.
func (q *pathQueue) add(all bool, paths map[string]bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for path, tree := range paths {
		was, there := q.trees[path]
		if !there {
			q.bytes += len(path)
		}
		q.trees[path] = was || tree
	}
	if all || len(q.trees) > maxPaths || q.bytes > maxBytes {
		q.all, q.bytes = true, 0
		clear(q.trees)
	}
	select {
	case q.some <- struct{}{}:
	default:
	}
}

// take takes out what one message holds. What was taken before is told, or was added again.
func (q *pathQueue) take() (all bool, paths map[string]bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.all {
		// It covers what came before, and what comes later is told in turn.
		q.all, q.busy, q.bytes = false, true, 0
		clear(q.trees)
		return true, nil
	}
	paths = map[string]bool{}
	size := 0
	for path, tree := range q.trees {
		if len(paths) >= pathsAtOnce || len(paths) > 0 && size+len(path) > bytesAtOnce {
			break
		}
		size += len(path)
		paths[path] = tree
		delete(q.trees, path)
	}
	q.bytes -= size
	q.busy = len(paths) > 0
	return false, paths
}

// told tells whether nothing is left to be told.
func (q *pathQueue) told() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return !q.all && !q.busy && len(q.trees) == 0
}

// changed is one message. Paths that are no UTF-8 are among the bytes, in base64.
type changed struct {
	Kind       events.Kind `json:"kind"`
	Time       time.Time   `json:"time"`
	Master     string      `json:"master"`
	Slave      string      `json:"slave"`
	All        bool        `json:"all"`
	Paths      []string    `json:"paths"`
	Trees      []string    `json:"trees"`
	PathsBytes [][]byte    `json:"paths_bytes,omitempty"`
	TreesBytes [][]byte    `json:"trees_bytes,omitempty"`
}

// message is one line of JSON. Paths are sorted, so equal lists give equal messages.
func (h *hook) message(all bool, paths map[string]bool) ([]byte, error) {
	m := changed{Kind: Changed, Time: time.Now().Round(0).UTC(), Master: h.Master, Slave: h.Slave, All: all, Paths: []string{}, Trees: []string{}}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		text, raw := &m.Paths, &m.PathsBytes
		if paths[path] {
			text, raw = &m.Trees, &m.TreesBytes
		}
		if utf8.ValidString(path) {
			*text = append(*text, path)
		} else {
			*raw = append(*raw, []byte(path))
		}
	}
	body, err := json.Marshal(m)
	return append(body, '\n'), err
}

// runChanged tells of paths until ctx ends. What could not be told when that happens is told as "all" by the next worker.
func (h *hook) runChanged(ctx context.Context) {
	wait := h.pauseFirst
	for {
		all, paths := h.paths.take()
		if !all && len(paths) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-h.paths.some:
			}
			continue
		}
		err := h.tellPaths(ctx, all, paths)
		if err == nil {
			wait = h.pauseFirst
			h.failing(&h.changes, nil)
			continue
		}
		h.paths.add(all, paths)
		if ctx.Err() != nil {
			return
		}
		h.failing(&h.changes, err)
		if !pause(ctx, wait-rand.N(wait/2)) {
			return
		}
		wait = min(2*wait, pauseLast)
	}
}

// tellPaths tries once. The caller puts the paths back if it fails.
func (h *hook) tellPaths(ctx context.Context, all bool, paths map[string]bool) error {
	body, err := h.message(all, paths)
	if err != nil {
		return err
	}
	return h.once(ctx, body, &events.Event{Kind: Changed, Master: h.Master, Slave: h.Slave}, func(err error) { h.failing(&h.changes, err) })
}

// Changed hands over paths that have become durable on the slave, or says with all that nobody
// knows which. It never waits. It may be called from any goroutine.
func (r *Runner) Changed(all bool, paths, trees [][]byte) {
	wanted := map[string]bool{}
	for _, path := range trees {
		wanted[string(path)] = true // of what lies below it nobody knows whether it matches
	}
	for _, path := range paths {
		if r.pattern == nil || matches(r.pattern, string(path)) {
			wanted[string(path)] = wanted[string(path)]
		}
	}
	if !all && len(wanted) == 0 {
		return
	}
	for _, q := range r.paths {
		q.add(all, wanted)
	}
}

// matches tells whether a path, or a directory above it, is among what the patterns name.
func matches(f *filter.Filter, path string) bool {
	d := f.Root()
	path, isDir := strings.CutSuffix(path, "/")
	for {
		name, rest, more := strings.Cut(path, "/")
		if d.Excludes(name, more || isDir, -1) {
			return true
		}
		if !more {
			return false
		}
		d, path = d.Down(name), rest
	}
}
