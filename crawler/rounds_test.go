package crawler

import "testing"

// TestRoundIsWhole: the visits of a round are all on their way from its beginning, so the first that ends, before the second is
// even queued, does not end the round. It did, and where that happened twice nothing was put off any more, and what had moved was refused
// as a removal (max-delete) before the crawl came to its new place.
func TestRoundIsWhole(t *testing.T) {
	a, b := &node{}, &node{}
	m := &moves{busy: 1, waiting: []*node{a, b}, progress: true}
	if got := m.ended(1); len(got) != 2 {
		t.Fatalf("the round is of %d directories", len(got))
	}
	m.waiting = append(m.waiting, a) // its visit has ended, and it waits once more
	if got := m.ended(1); got != nil {
		t.Fatalf("the next round began, off %v, over %v, while the visit to another directory went on", m.off, m.over)
	}
	if m.off || m.over {
		t.Errorf("off %v, over %v within the first round", m.off, m.over)
	}
	if got := m.ended(1); len(got) != 1 || got[0] != a || !m.off || m.over {
		t.Errorf("then %d directories, off %v, over %v", len(got), m.off, m.over)
	}
}
