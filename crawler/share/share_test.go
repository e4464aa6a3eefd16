package share

import (
	"math/rand/v2"
	"testing"

	"georep/slave"
)

// TestSharesCoverAll: however shares are halved, each name is in exactly one of those that are worked on, and the last one knows that
// it is the last.
func TestSharesCoverAll(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		base := rnd.Uint32N(7) + 1
		seen := make([]int, 5000)
		for part, parts := uint32(0), base; ; {
			for parts < 1<<12 && rnd.IntN(3) == 0 {
				parts *= 2
			}
			for i := range seen {
				if slave.PartOf(string(rune(i)), parts) == part {
					seen[i]++
				}
			}
			if part+1 == parts {
				break
			}
			part, parts = Next(part, parts, base)
		}
		for _, n := range seen {
			if n != 1 {
				t.Fatalf("seed %d: a name was in %d shares", seed, n)
			}
		}
	}
	q := slave.Query{Path: "d", Part: 5, Parts: 9}
	for i := range 5000 {
		name := string(rune(i))
		in := 0
		for _, h := range Smaller(q, 0) {
			if slave.PartOf(name, h.Parts) == h.Part {
				in++
			}
		}
		if is := slave.PartOf(name, q.Parts) == q.Part; is != (in == 1) || in > 1 {
			t.Fatalf("%q is in %d halves", name, in)
		}
	}
	if n := len(Smaller(slave.Query{}, 1<<62)); n != many {
		t.Errorf("%d parts of a directory that is said to be endless", n)
	}
	if got := Smaller(slave.Query{Part: 1, Parts: Max}, 1); got != nil {
		t.Errorf("%d parts of what is small already", len(got))
	}
}
