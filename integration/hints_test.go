package integration

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/integration/harness/tree"
	"georep/marker"
	"georep/marker/hint"
	"georep/status"
)

// TestChangesInALargeDirectoryAreNotListed: with hints a change costs no listing, without them it does; the status says
// which.
func TestChangesInALargeDirectoryAreNotListed(t *testing.T) {
	for name, c := range map[string]struct{ hints, source string }{
		"on": {"on", marker.SourceFanotify}, "off": {"off", marker.SourceFanotify}, "by inotify": {"on", marker.SourceInotify},
	} {
		t.Run(name, func(t *testing.T) {
			crawl := status.NoCrawl
			if c.hints == "on" {
				crawl = status.ChangelogCrawl
			}
			master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
			s := newSession(t, master, slave)
			if err := tree.Many(master, 3000, 1500, 10); err != nil {
				t.Fatal(err)
			}
			pause(t, 2500*time.Millisecond) // what is younger than the last heartbeat, less two seconds, the next start marks
			s.must(s.sync("--marker-source", c.source))
			s.must(s.start("--hints", c.hints, "--marker-source", c.source))
			s.waitStatus("idle", func(st status.Status) bool { return st.State == status.Active && st.Crawl == crawl })
			const changes = 5
			for i := range changes {
				if err := os.WriteFile(filepath.Join(master, "d000000", fmt.Sprint("new", i)), []byte("new"), 0o644); err != nil {
					t.Fatal(err)
				}
				now := time.Now()
				s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
			}
			s.waitSynced()
			s.waitStatus("idle again", func(st status.Status) bool { return st.Crawl == crawl })
			s.must(s.run("stop", s.masterArg, s.spec))
			visited, hinted := s.lastLogged("the worker ends", "visited").(int), s.lastLogged("the worker ends", "hinted").(int)
			t.Logf("%d directories were listed, %d visited by hints", visited, hinted)
			if c.hints == "on" && (visited > 6 || hinted < 2*changes) || c.hints == "off" && (visited < 2*changes || hinted != 0) {
				t.Errorf("%d directories were listed, %d visited by hints", visited, hinted)
			}
		})
	}
}

// TestHintsComeBackWithTheMarker: after the marker was killed the worker compares, and follows the next one's hints.
func TestHintsComeBackWithTheMarker(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}))
	s := newSession(t, master, slave)
	if err := tree.Many(master, 300, 100, 10); err != nil {
		t.Fatal(err)
	}
	s.must(s.start())
	following := func(st status.Status) bool { return st.Crawl == status.ChangelogCrawl && st.LagSeconds == 0 }
	s.waitStatus("following hints", following)
	worker := s.status().WorkerPid
	for range 2 {
		ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d"))
		if err != nil || !isGeorep(ms.PID) {
			t.Fatalf("the marker's pid: %+v, %v", ms, err)
		}
		if err := syscall.Kill(ms.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		killed := ms.PID
		for end := time.Now().Add(patience); ms.PID == killed; pause(t, 20*time.Millisecond) {
			if ms, err = marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d")); err != nil || time.Now().After(end) {
				t.Fatalf("no other marker came: %+v, %v", ms, err)
			}
		}
		if err := os.Remove(filepath.Join(master, "d000000", firstIn(t, filepath.Join(master, "d000000")))); err != nil {
			t.Fatal(err)
		}
		s.waitSynced()
		s.waitStatus("following hints again", following)
		if err := os.WriteFile(filepath.Join(master, "d000001", "new"), []byte(fmt.Sprint(time.Now())), 0o644); err != nil {
			t.Fatal(err)
		}
		s.waitSynced()
	}
	if now := s.status().WorkerPid; now != worker {
		t.Errorf("the worker was started again: %d, was %d", now, worker)
	}
}

func firstIn(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil || len(list) == 0 {
		t.Fatalf("%s: %v", dir, err)
	}
	return list[0].Name()
}

// TestRandomHintsCut does random operations while the connection that hints come by is cut at any byte, again and again.
func TestRandomHintsCut(t *testing.T) {
	seeds, operations := number(t, "GEOREP_SEEDS", 2), number(t, "GEOREP_OPERATIONS", 2000)
	first := number(t, "GEOREP_SEED", 1)
	kinds := fstest.All()
	for seed := first; seed < first+seeds; seed++ {
		kind, profile := kinds[(seed+1)%len(kinds)], profileOf(seed, "renames", "exchange", "default", "links")
		t.Run(fmt.Sprintf("seed %d %s %s", seed, kind, profile), func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, kind, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			s.must(s.start("--max-delete", "100", "--log-level", logLevel()))
			s.waitStatus("following hints", func(st status.Status) bool { return st.Crawl == status.ChangelogCrawl })
			cuts := s.cutHints(rand.New(rand.NewPCG(uint64(seed), 5)))
			m, err := mutate.New(master, uint64(seed), mutate.Options{Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(t.Context(), operations, time.Millisecond); err != nil {
				t.Fatalf("%v\n%s", err, m)
			}
			s.converge(m)
			if n := cuts(); n == 0 {
				t.Error("the connection was never cut")
			}
		})
	}
}

// cutHints puts itself between marker and worker, and lets each connection carry a random number of bytes only. What it
// returns ends that, and tells how often it cut.
func (s *session) cutHints(rnd *rand.Rand) (end func() int) {
	s.t.Helper()
	dir, err := os.Open(filepath.Join(s.state, "volumes", "data.d"))
	if err != nil {
		s.t.Fatal(err)
	}
	real := hint.File + ".real"
	if err := os.Rename(filepath.Join(dir.Name(), hint.File), filepath.Join(dir.Name(), real)); err != nil {
		s.t.Fatal(err)
	}
	at := "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/"
	l, err := net.Listen("unix", at+hint.File)
	if err != nil {
		s.t.Fatal(err)
	}
	if pid := s.status().WorkerPid; isGeorep(pid) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // the next one comes here
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	cuts := 0
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from, err := net.Dial("unix", at+real)
			if err == nil {
				stop := context.AfterFunc(ctx, func() { from.Close() })
				limit := int64(rnd.IntN(20_000))
				if n, _ := io.CopyN(c, from, limit); n == limit {
					cuts++
				}
				stop()
				from.Close()
			}
			c.Close()
		}
	})
	var once sync.Once
	end = func() int {
		once.Do(func() {
			cancel()
			l.Close()
			wg.Wait()
			dir.Close()
		})
		return cuts
	}
	s.t.Cleanup(func() { end() })
	return end
}
