package integration

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
)

// TestBursts lets the slave come in step again and again after a few operations: what a crawl leaves wrong is as a rule
// put right by the next change near it, and shows only where none comes.
func TestBursts(t *testing.T) {
	seed := uint64(number(t, "GEOREP_SEED", 1))
	profile := []string{"default", "links", "renames"}[seed%3]
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 30}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100", "--log-level", logLevel()))
	m, err := mutate.New(master, seed, mutate.Options{Profile: profile, MaxEntries: 500, MaxFile: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), 300, 0); err != nil {
		t.Fatal(err)
	}
	s.converge(m)
	rnd := rand.New(rand.NewPCG(seed, 2))
	for burst := range number(t, "GEOREP_BURSTS", 6) {
		if err := m.Run(t.Context(), 1+rnd.IntN(number(t, "GEOREP_STEPS", 40)), time.Duration(rnd.IntN(8))*time.Millisecond); err != nil {
			t.Fatalf("%v\n%s", err, m)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := compare.Wait(ctx, master, slave, compare.Replica())
		cancel()
		if err != nil {
			s.records()
			t.Fatalf("burst %d: %v\nstatus: %+v\n%s", burst, err, s.status(), m)
		}
	}
	s.converge(m)
}
