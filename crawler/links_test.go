package crawler

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// TestRevisitsDoNotMeet: of the directories that are visited at the same time none lies in another, and each gets its turn.
func TestRevisitsDoNotMeet(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var left []*node
		paths := map[string]bool{}
		for range rnd.IntN(30) + 1 {
			parts := make([]string, rnd.IntN(5)+1)
			for i := range parts {
				parts[i] = string(rune('a' + rnd.IntN(3)))
			}
			if p := strings.Join(parts, "/"); !paths[p] {
				paths[p] = true
				left = append(left, &node{path: p})
			}
		}
		for len(left) > 0 {
			var now []*node
			now, left = apart(left)
			if len(now) == 0 {
				t.Fatalf("seed %d: nothing to do, %d left", seed, len(left))
			}
			for _, a := range now {
				if !paths[a.path] {
					t.Fatalf("seed %d: %s twice", seed, a.path)
				}
				delete(paths, a.path)
				for _, b := range now {
					if strings.HasPrefix(a.path, b.path+"/") {
						t.Fatalf("seed %d: %s and %s at once", seed, a.path, b.path)
					}
				}
			}
		}
		if len(paths) > 0 {
			t.Fatalf("seed %d: forgotten: %v", seed, paths)
		}
	}
}
