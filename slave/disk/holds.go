package disk

import "georep/internal/beneath"

// holds knows which directories may not be stamped in a pass.
type holds struct {
	pass  uint32
	above map[string]struct{} // all directories above a failed one
	every bool                // none may: a sync failed
	next  bool                // every is for the next pass that is seen too
}

// enter begins a pass: what failed in the one before says nothing of this one.
func (h *holds) enter(pass uint32) {
	if h.pass != pass || h.above == nil {
		*h = holds{pass: pass, above: map[string]struct{}{}, every: h.next}
	}
}

// failed notes that the finish of path failed.
func (h *holds) failed(pass uint32, path string) {
	h.enter(pass)
	for path != "" {
		path, _ = beneath.Split(path)
		if _, known := h.above[path]; known {
			return
		}
		h.above[path] = struct{}{}
	}
}

// unsynced holds back every stamp of the pass that the waiting stamps are of. Where none waits it cannot be known
// which pass it struck, so the next one seen is held back as well.
func (h *holds) unsynced(waiting []stamp) {
	if len(waiting) > 0 {
		h.enter(waiting[len(waiting)-1].it.op.Pass)
	}
	h.every, h.next = true, len(waiting) == 0
}

// held tells whether a failure lies below path.
func (h *holds) held(pass uint32, path string) bool {
	h.enter(pass)
	_, above := h.above[path]
	return above || h.every
}
