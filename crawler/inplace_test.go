package crawler_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
)

// TestChangesInPlace: whatever changes of a file, and however many places, the slave's is equal afterwards; what changed
// in place is sent, and little more than that. Of a large file the signature comes in two parts, and the second only where
// much is not in place.
func TestChangesInPlace(t *testing.T) {
	const size, block = 2<<20 + 777, 4 << 10 // the length of a block at this size
	for name, c := range map[string]struct {
		change func(b []byte, rnd *rand.Rand) []byte
		most   int64 // bytes sent
	}{
		"one byte":   {func(b []byte, rnd *rand.Rand) []byte { b[rnd.IntN(size)]++; return b }, 2 * block},
		"first byte": {func(b []byte, _ *rand.Rand) []byte { b[0]++; return b }, 2 * block},
		"last byte":  {func(b []byte, _ *rand.Rand) []byte { b[size-1]++; return b }, 2 * block},
		"scattered": {func(b []byte, rnd *rand.Rand) []byte {
			for range 40 {
				b[rnd.IntN(size)]++
			}
			return b
		}, 41 * block},
		"longer":  {func(b []byte, _ *rand.Rand) []byte { return append(b, bytesOf(5000, 3)...) }, 5000 + 2*block},
		"shorter": {func(b []byte, _ *rand.Rand) []byte { return b[:size/2+5] }, 2 * block},
		"in front": {func(b []byte, _ *rand.Rand) []byte { return append([]byte("front"), b...) },
			3 * block},
		"in the middle": {func(b []byte, rnd *rand.Rand) []byte {
			at := rnd.IntN(size)
			return append(b[:at:at], append([]byte("middle"), b[at:]...)...)
		}, 3 * block},
		"every block but a few": {func(b []byte, _ *rand.Rand) []byte {
			for at := 0; at < size; at += block {
				if at/block%50 != 0 {
					b[at]++
				}
			}
			return b
		}, size},
		"first half": {func(b []byte, _ *rand.Rand) []byte { return append(bytesOf(size/2, 8), b[size/2:]...) },
			size/2 + 2*block},
		"all": {func([]byte, *rand.Rand) []byte { return bytesOf(size, 99) }, size},
		"two blocks changed places": {func(b []byte, _ *rand.Rand) []byte {
			var first [block]byte
			copy(first[:], b)
			copy(b, b[9*block:10*block])
			copy(b[9*block:], first[:])
			return b
		}, 0},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s %d", name, seed), func(t *testing.T) {
				w, seen := counted(t)
				large := seed%2 == 1
				if large {
					w.crawler.Large(size)
				}
				text := bytesOf(size, seed+20)
				w.ok(os.WriteFile(w.at("f"), text, 0o644))
				w.mark("")
				w.inStep()
				before := seen().data
				w.ok(os.WriteFile(w.at("f"), c.change(text, rand.New(rand.NewPCG(seed, 1))), 0o644))
				w.mark("f")
				w.inStep()
				s := seen()
				most, signatures := c.most, 1
				if large {
					most += size / 256 // which is not worth looking for
					if shifted := strings.HasPrefix(name, "in "); shifted {
						signatures = 2
					} else if c.most > 2*block {
						signatures = s.signed // one or the other
					}
				}
				if s.signed != signatures || s.data-before > most {
					t.Errorf("%d bytes were sent, %d expected at most; %d signatures, not %d", s.data-before, most, s.signed, signatures)
				}
			})
		}
	}
}
