package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/status"
)

// TestPowerCutsOfTheMaster cuts the power of the master's host, with its state directory, while a session runs. The master
// goes back to what the cut left; the slave, which is not cut, has more than that by then. The host starts anew, and the
// slave must become equal, without what the master lost.
func TestPowerCutsOfTheMaster(t *testing.T) {
	cuts, seed := number(t, "GEOREP_POWER_CUTS", 1), uint64(number(t, "GEOREP_SEED", 1))
	kinds := []string{fstest.Ext4, fstest.XFS, fstest.Btrfs}
	for i, kind := range kinds {
		if share := (cuts + len(kinds) - 1 - i) / len(kinds); share > 0 {
			t.Run(kind, func(t *testing.T) { cutMaster(t, kind, share, seed+uint64(i)) })
		}
	}
}

func cutMaster(t *testing.T, kind string, cuts int, seed uint64) {
	disk := fstest.NewDisk(t, kind, seed%2 == 0, 1<<30)
	master, state := filepath.Join(disk.Dir, "master"), filepath.Join(disk.Dir, "state")
	for _, dir := range []string{master, state} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := newSessionIn(t, state, master, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 30}))
	here := newHost(t)
	s.program = here.program
	rnd := rand.New(rand.NewPCG(seed, 17))
	start := []string{"--max-delete", "100", "--retry-max", "1s", "--log-level", logLevel()}
	s.must(s.start(start...))
	s.waitSynced()
	ahead := 0
	for n := range cuts {
		s.cutUnderLoad(disk, seed*1000+uint64(n), rnd)
		here.boot()
		if found, err := compare.Trees(s.master, s.slave, compare.Replica()); err != nil {
			t.Fatal(err)
		} else if len(found) > 0 {
			ahead++
		}
		s.must(s.start(start...))
		s.waitSynced()
	}
	s.must(s.run("stop", s.masterArg, s.spec))
	t.Logf("%d cuts; after %d of them the slave was not what the master had gone back to", cuts, ahead)
	if cuts > 3 && ahead == 0 {
		t.Error("no cut took anything: they tell nothing")
	}
}

// cutUnderLoad changes the master in a directory of its own, cuts the power meanwhile, and goes on for a while, so that
// the slave gets what the cut takes from the master. At the end the disk is as the cut left it, and nothing runs.
func (s *session) cutUnderLoad(disk *fstest.Disk, seed uint64, rnd *rand.Rand) {
	s.t.Helper()
	s.waitStatus("active", func(st status.Status) bool { return st.State == status.Active })
	dir := filepath.Join(s.master, fmt.Sprintf("load-%d", seed))
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	m, err := mutate.New(dir, seed, mutate.Options{MaxEntries: 500, Profile: profileOf(int(seed), "default", "links", "exchange")})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(s.t.Context())
	defer stop()
	var load sync.WaitGroup
	load.Go(func() {
		if err := m.Run(ctx, 0, time.Millisecond); err != nil {
			s.t.Error(err)
		}
	})
	pause(s.t, time.Duration(200+rnd.IntN(1500))*time.Millisecond)
	disk.Cut()
	pause(s.t, time.Duration(100+rnd.IntN(500))*time.Millisecond)
	stop()
	load.Wait()
	s.lightsOut()
	disk.Restore()
}
