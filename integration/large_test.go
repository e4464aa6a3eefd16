package integration

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
)

// incompressible makes a file that cannot be sent in fewer bytes.
func incompressible(t *testing.T, path string, size int, seed byte) {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// received is how much of all uploads the slave has on disk.
func (s *session) received() (n int64) {
	list, _ := os.ReadDir(filepath.Join(s.slave, ".georep", "partial"))
	for _, e := range list {
		if info, err := e.Info(); err == nil {
			n += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
	}
	return n
}

// TestLargeFileGoesOn: a file whose sending was cut by the line, by the end of the agent or of the worker, goes on where it
// was; and what has changed in it since the slave has it is all that is sent.
func TestLargeFileGoesOn(t *testing.T) {
	const size, again = 64 << 20, 12 << 20
	for _, kind := range everywhere(fstest.Btrfs, fstest.Ext4) {
		t.Run(kind, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, kind, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			p := s.through(proxy.Options{Rate: 40 << 20})
			s.must(s.start("--retry-max", "1s"))
			s.waitSynced()
			for i, cut := range []func(){
				func() { p.Cut() },
				func() { s.kill(s.agentPid()) },
				func() { s.kill(s.status().WorkerPid) },
			} {
				before := p.Stats().BytesUp
				outside := filepath.Join(filepath.Dir(master), "file")
				incompressible(t, outside, size, byte(i))
				if err := os.Rename(outside, filepath.Join(master, fmt.Sprint("large", i))); err != nil {
					t.Fatal(err)
				}
				for deadline := time.Now().Add(patience); s.received() < size*6/10; pause(t, 10*time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatalf("only %d bytes arrived", s.received())
					}
				}
				cut()
				s.waitSynced()
				if n := p.Stats().BytesUp - before; n < size || n > size+again {
					t.Errorf("cut %d: %d bytes were sent for %d", i, n, size)
				}
			}
			before := p.Stats().BytesUp
			f, err := os.OpenFile(filepath.Join(master, "large2"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.WriteAt(make([]byte, 1<<20), size/2)
			if cerr := f.Close(); err != nil || cerr != nil {
				t.Fatal(err, cerr)
			}
			s.waitSynced()
			// Twice, where the mark of the close comes while the change is on its way.
			if n := p.Stats().BytesUp - before; n > 3<<20 {
				t.Errorf("%d bytes were sent for a change of 1 MiB", n)
			}
		})
	}
}

// kill ends a process of the session, which must be one of ours.
func (s *session) kill(pid int) {
	s.t.Helper()
	if pid <= 1 || !isGeorep(pid) {
		s.t.Fatalf("%d is no process of the session", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

// TestBandwidthLimit: no channel of the session, nor all of them together, exceeds the limit. A slow machine only makes it
// take longer.
func TestBandwidthLimit(t *testing.T) {
	const size, rate = 8 << 20, 2 << 20
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
	s.must(s.run("config", s.masterArg, s.spec, "bwlimit", "2M"))
	for i := range 4 {
		incompressible(t, filepath.Join(master, fmt.Sprint(i)), size/4, byte(i))
	}
	begun := time.Now()
	s.must(s.sync())
	if took := time.Since(begun); took < size/rate*time.Second/2 {
		t.Errorf("%d bytes at %d a second took %v", size, rate, took)
	}
	s.equal()
}

// TestCompression: what compresses well is sent compressed.
func TestCompression(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	p := s.through(proxy.Options{})
	s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
	s.must(s.run("config", s.masterArg, s.spec, "compression", "always"))
	text := strings.Repeat("what compresses well is sent compressed\n", 100_000)
	writeFile(t, filepath.Join(master, "large"), text)
	for i := range 200 {
		writeFile(t, filepath.Join(master, fmt.Sprint("small", i)), text[i:i+5000])
	}
	s.must(s.sync())
	if n := p.Stats().BytesUp; n > int64(len(text))/4 {
		t.Errorf("%d bytes were sent for %d", n, len(text)+200*5000)
	}
	s.equal()
}
