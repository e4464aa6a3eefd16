package apply

import (
	"strings"

	"georep/internal/beneath"
)

// Holds knows which directories may not be stamped in a pass (invariant 6). The zero value is ready.
type Holds struct {
	pass  uint32
	above map[string]struct{} // all directories above a failed one
	every bool                // none may: what was published may not be durable
	next  bool                // every is for the next pass that is seen too
}

// enter begins a pass: what failed in the one before says nothing of this one.
func (h *Holds) enter(pass uint32) {
	if h.pass != pass || h.above == nil {
		*h = Holds{pass: pass, above: map[string]struct{}{}, every: h.next}
	}
}

// Failed notes that the finish of path failed.
func (h *Holds) Failed(pass uint32, path string) {
	h.enter(pass)
	for path != "" {
		path, _ = beneath.Split(path)
		if _, known := h.above[path]; known {
			return
		}
		h.above[path] = struct{}{}
	}
}

// Unsynced holds back every stamp of a pass: what was published in it may not be durable.
func (h *Holds) Unsynced(pass uint32) {
	h.enter(pass)
	h.every, h.next = true, false
}

// UnsyncedAny is Unsynced where it cannot be known which pass that struck: it may be the last one, or the next.
func (h *Holds) UnsyncedAny() { h.every, h.next = true, true }

// Held tells whether the stamp of path is held back.
func (h *Holds) Held(pass uint32, path string) bool {
	h.enter(pass)
	_, above := h.above[path]
	return above || h.every
}

// Within tells whether path is dir, or lies below it.
func Within(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}
