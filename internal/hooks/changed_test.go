package hooks

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/internal/events"
	"georep/volume"
)

// TestChanged: paths are told however often the receiver fails, only those that are wanted, and "all" where they are too many.
func TestChanged(t *testing.T) {
	paths := map[string]bool{}
	all := 0
	s := serve(t, nil)
	s.answer = func(w http.ResponseWriter, n int) bool {
		if n%3 == 0 {
			w.WriteHeader(http.StatusBadGateway)
			return false
		}
		return true
	}
	collect := func() (map[string]bool, int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, body := range s.bodies {
			var m changed
			if err := json.Unmarshal(body, &m); err != nil || m.Kind != Changed || m.Master != "data" || m.Slave != "h::copy" {
				t.Errorf("%s: %v", body, err)
			}
			if m.All {
				all++
			}
			for _, list := range [][]string{m.Paths, m.Trees} {
				for _, p := range list {
					paths[p] = true
				}
			}
			for _, p := range append(m.PathsBytes, m.TreesBytes...) {
				paths[string(p)] = true
			}
		}
		s.bodies = nil
		return paths, all
	}
	b := newBench(t, volume.Hook{URL: s.URL, Changed: true, Pattern: "*.html\n/img/"})
	b.config.Master, b.config.Slave = "data", "h::copy"
	r := b.start()
	r.Changed(false, [][]byte{[]byte("a/x.html"), []byte("a/x.txt"), []byte("img/1"), []byte("a/img/2"), []byte("\xff.html"), []byte("img/"), []byte("a/")},
		[][]byte{[]byte("moved")})
	want := "a/x.html img/ img/1 moved \xff.html"
	until(t, "the paths", func() bool { got, _ := collect(); return len(got) >= 5 })
	if got, all := collect(); strings.Join(slices.Sorted(maps.Keys(got)), " ") != want || all != 0 {
		t.Errorf("told of %q, all: %d", slices.Sorted(maps.Keys(got)), all)
	}
	for i := range 3 {
		var list [][]byte
		for n := range 1000 {
			list = append(list, fmt.Appendf(nil, "d%d/%d.html", i, n))
		}
		r.Changed(false, list, nil)
	}
	until(t, "many paths", func() bool { got, _ := collect(); return len(got) == 3005 })
	r.Changed(true, nil, nil)
	until(t, "all", func() bool { _, n := collect(); return n == 1 })
	// A receiver that is away for long: it is told of all, and nothing waits for it.
	s.mu.Lock()
	away := true
	s.answer = func(w http.ResponseWriter, n int) bool {
		if away {
			w.WriteHeader(http.StatusBadGateway)
		}
		return !away
	}
	s.mu.Unlock()
	for i := range 2 * maxPaths / 1000 {
		var list [][]byte
		for n := range 1000 {
			list = append(list, fmt.Appendf(nil, "e%d/%d.html", i, n))
		}
		r.Changed(false, list, nil)
	}
	r.paths[0].mu.Lock()
	if n := len(r.paths[0].trees); n > maxPaths {
		t.Errorf("%d paths wait", n)
	}
	r.paths[0].mu.Unlock()
	s.mu.Lock()
	away = false
	s.mu.Unlock()
	until(t, "all", func() bool { _, n := collect(); return n == 2 })
	r.Stop(0, 0)
}

// TestStopLeavesWhatHangs: a command that cannot be killed, since it hangs in the kernel, holds up no end, and so no change of the settings.
func TestStopLeavesWhatHangs(t *testing.T) {
	b := newBench(t, volume.Hook{})
	r := b.start()
	hangs := make(chan struct{})
	r.done.Go(func() { <-hangs })
	r.leave = time.Millisecond
	ended := make(chan struct{})
	go func() { r.Stop(0, 0); close(ended) }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it waits for a command that cannot be killed")
	}
	close(hangs)
}

// TestHookOnADeadFileSystem: a program whose file system does not answer is named, once, holds up no start of another process and no end.
func TestHookOnADeadFileSystem(t *testing.T) {
	dir := t.TempDir()
	fstest.MountSilent(t, dir)
	// What this looks for would hold up the test's own clocks, too.
	dog := exec.Command("/bin/sh", "-c", "timeout 60 cat; [ $? != 124 ] || kill -9 $PPID")
	leash, err := dog.StdinPipe()
	if err == nil {
		err = dog.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { leash.Close(); dog.Wait() })
	b := newBench(t, volume.Hook{Command: []string{filepath.Join(dir, "hook")}, Changed: true})
	b.config.timeout, b.config.leave = 20*time.Millisecond, 20*time.Millisecond
	r := b.start()
	b.add(events.Failure)
	r.Changed(true, nil, nil)
	ran := make(chan error, 1)
	until(t, "what is wrong, of events and of paths", func() bool { return strings.Count(b.failures(), "has hung") == 2 })
	go func() { ran <- exec.Command("/bin/true").Run() }()
	select {
	case err := <-ran:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("no other process can be started")
	}
	r.Stop(b.journal.Last(), patience)
	if strings.Count(b.failures(), "has hung") != 2 {
		t.Errorf("told of %s", b.failures())
	}
}
