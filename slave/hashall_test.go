package slave_test

import (
	"context"
	"sync/atomic"
	"testing"

	"georep/slave"
)

// TestHashers: all files are hashed, in their order, and never more at a time than there are slots.
func TestHashers(t *testing.T) {
	h := slave.Hashers{Slots: make(chan struct{}, 3), Ended: make(chan struct{})}
	paths := make([]string, 100)
	for i := range paths {
		paths[i] = string(rune('a' + i))
	}
	var now atomic.Int32
	got := h.All(t.Context(), paths, func(path string) slave.HashResult {
		defer now.Add(-1)
		if n := now.Add(1); n > 3 {
			t.Errorf("%d at a time", n)
		}
		return slave.HashResult{Size: int64([]rune(path)[0])}
	})
	for i, r := range got {
		if r.Size != int64('a'+i) {
			t.Errorf("answer %d is of file %d", i, r.Size-'a')
		}
	}
	if len(h.Slots) != 0 {
		t.Error("slots are left")
	}
}

// TestHashersEnd: whoever waits for a slot, which other calls have, does not wait when its call or the session ends.
func TestHashersEnd(t *testing.T) {
	ended := make(chan struct{})
	h := slave.Hashers{Slots: make(chan struct{}, 1), Ended: ended}
	h.Slots <- struct{}{}
	never := func(string) slave.HashResult { return slave.HashResult{Size: 1} }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	of := map[string][]slave.HashResult{"call": h.All(ctx, []string{"a", "b"}, never)}
	close(ended)
	of["session"] = h.All(t.Context(), []string{"a", "b"}, never)
	for what, got := range of {
		if len(got) != 2 || got[0].Size != 0 || got[1].Size != 0 {
			t.Errorf("the %s has ended: %v", what, got)
		}
	}
}
