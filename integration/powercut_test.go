package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/ledger"
	"georep/integration/harness/mutate"
	"georep/marker"
	"georep/marker/xtime"
	"georep/status"
	"georep/volume"
)

// TestPowerCuts cuts the power of the slave at random moments under load, on each file system, with a device that has a
// write cache and one that has none. What is left is held to invariant 5, and carries on to equality as the next slave.
func TestPowerCuts(t *testing.T) {
	cuts, seed := number(t, "GEOREP_POWER_CUTS", 2), number(t, "GEOREP_SEED", 1)
	kinds := []string{fstest.Ext4, fstest.XFS, fstest.Btrfs}
	const variants = 6
	for i := range variants {
		kind, volatile := kinds[i%len(kinds)], i%2 == 0
		mine := (cuts + variants - 1 - i) / variants
		t.Run(fmt.Sprintf("%s volatile=%v", kind, volatile), func(t *testing.T) {
			if mine > 0 {
				powerCuts(t, fstest.NewDisk(t, kind, volatile, 1<<30), mine, uint64(seed+i))
			}
		})
	}
}

func powerCuts(t *testing.T, disk *fstest.Disk, cuts int, seed uint64) {
	slave := filepath.Join(disk.Dir, "slave")
	if err := os.Mkdir(slave, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSession(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 30}), slave)
	far := newHost(t)
	s.extra = []string{"--remote-georep", far.program}
	l := newLoad(t, s, seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	start := []string{"--max-delete", "100", "--retry-max", "1s", "--log-level", logLevel()}
	s.must(s.start(start...))
	s.waitStatus("up", func(st status.Status) bool { return st.State == status.Active })
	sum := ledger.Report{}
	for n := range cuts {
		stop := l.run()
		pause(t, time.Duration(1500+rnd.IntN(2000))*time.Millisecond)
		disk.Cut()
		s.must(s.run("stop", s.masterArg, s.spec))
		stop()
		disk.Restore()
		far.boot()
		r := l.check()
		for _, wrong := range r.Wrong {
			t.Errorf("cut %d: a stamp lies: %s", n, wrong)
		}
		sum.Claimed, sum.Names = sum.Claimed+r.Claimed, sum.Names+r.Names
		s.must(s.start(start...))
		s.converge(l.mutator)
		// The books must agree with what is in step, or they prove nothing.
		if r := l.settled(); len(r.Wrong) > 0 || r.Claimed == 0 {
			t.Fatalf("the books are wrong: %+v", r)
		}
	}
	t.Logf("%d cuts: %d directories and %d names held to what a stamp claims", cuts, sum.Claimed, sum.Names)
	if cuts > 3 && sum.Names == 0 {
		t.Error("no stamp claimed anything")
	}
	if t.Failed() {
		t.Log(l.mutator)
	}
}

// host is a machine that can be started anew: what runs there sees another boot id then.
type host struct {
	t       testing.TB
	program string // georep on it
	file    string // has the boot id
	boots   int
}

// newHost writes the program: georep in a mount namespace of its own.
func newHost(t testing.TB) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{t: t, program: filepath.Join(dir, "georep"), file: filepath.Join(dir, "boot_id")}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation slave sh -c '"+
		"mount --bind %s /proc/sys/kernel/random/boot_id && exec %s \"$@\"' georep \"$@\"\n", h.file, binary)
	if err := os.WriteFile(h.program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h.boot()
	return h
}

// boot starts it anew.
func (h *host) boot() {
	h.t.Helper()
	h.boots++
	if err := os.WriteFile(h.file, fmt.Appendf(nil, "boot-%d\n", h.boots), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// load changes the master: one part with books, and another in every way there is.
type load struct {
	s       *session
	ledger  *ledger.Ledger
	mutator *mutate.Mutator
	names   xtime.Names
}

// The parts of the master that a load changes.
const booksDir, mutateDir = "books", "random"

func newLoad(t *testing.T, s *session, seed uint64) *load {
	t.Helper()
	l := &load{s: s}
	for _, dir := range []string{booksDir, mutateDir} {
		if err := os.Mkdir(filepath.Join(s.master, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if l.ledger, err = ledger.New(filepath.Join(s.master, booksDir), seed); err != nil {
		t.Fatal(err)
	}
	profile := profileOf(int(seed), "default", "links", "exchange")
	l.mutator, err = mutate.New(filepath.Join(s.master, mutateDir), seed, mutate.Options{MaxEntries: 500, Profile: profile})
	if err != nil {
		t.Fatal(err)
	}
	l.names = s.recordNames()
	return l
}

// recordNames are the xattrs in which master and slave keep the records of the session.
func (s *session) recordNames() xtime.Names {
	s.t.Helper()
	store, err := volume.OpenStore(s.state)
	if err != nil {
		s.t.Fatal(err)
	}
	v, err := store.Volume("data")
	if err != nil {
		s.t.Fatal(err)
	}
	uuid, err := xtime.ParseUUID(v.UUID)
	if err != nil {
		s.t.Fatal(err)
	}
	return xtime.NamesFor(xtime.Trusted, uuid)
}

// run begins to change the master; the returned function ends that.
func (l *load) run() (stop func()) {
	ctx, cancel := context.WithCancel(l.s.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.mutator.Run(ctx, 0, 10*time.Millisecond); err != nil {
			l.s.t.Error(err)
		}
	})
	wg.Go(func() {
		tick := time.NewTicker(4 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			if err := l.ledger.Step(); err != nil {
				l.s.t.Errorf("change the master: %v", err)
				return
			}
			if n%25 == 0 {
				l.note()
			}
			<-tick.C
		}
	})
	return func() { cancel(); wg.Wait() }
}

// note books the state of now, and which xtimes cover the states before.
func (l *load) note() {
	if st, err := marker.ReadStatus(filepath.Join(l.s.state, "volumes", "data.d")); err == nil {
		l.ledger.Cover(st.Heartbeat, st.HeartbeatXtime)
	}
	l.ledger.Note()
}

// check holds the slave to the books.
func (l *load) check() ledger.Report {
	l.s.t.Helper()
	l.note()
	r, err := l.ledger.Check(l.s.slave, filepath.Join(l.s.slave, booksDir), &l.names)
	if err != nil {
		l.s.t.Fatal(err)
	}
	return r
}

// settled is check of a slave in step. The state of now may not be covered yet.
func (l *load) settled() ledger.Report { return l.check() }

// TestBooksFindWhatIsWrong sees that the books catch a stamp that lies.
func TestBooksFindWhatIsWrong(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 30}))
	s := newSession(t, master, slave)
	l := newLoad(t, s, 1)
	s.must(s.start("--max-delete", "100"))
	for range 300 {
		if err := l.ledger.Step(); err != nil {
			t.Fatal(err)
		}
	}
	l.ledger.Note()
	s.waitSynced()
	s.must(s.run("stop", s.masterArg, s.spec))
	if r := l.check(); len(r.Wrong) > 0 || r.Names < 20 {
		t.Fatalf("of a slave in step: %+v", r)
	}
	files := regularFiles(t, filepath.Join(slave, booksDir))
	break1, break2 := files[0], files[len(files)-1]
	if err := os.Remove(break1); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(break2, 3); err != nil {
		t.Fatal(err)
	}
	wrong := strings.Join(l.check().Wrong, "\n")
	for _, path := range []string{break1, break2} {
		if !strings.Contains(wrong, path) {
			t.Errorf("%s was damaged, and the books say %q", path, wrong)
		}
	}
}

func regularFiles(t *testing.T, root string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) < 2 {
		t.Fatalf("only %q: %v", files, err)
	}
	return files
}
