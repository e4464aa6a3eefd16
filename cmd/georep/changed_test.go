package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/oracle"
	"georep/status"
)

// listener is a hook that remembers what it was told since forget.
type listener struct {
	mu       sync.Mutex
	all      bool
	messages int
	paths    map[string]bool // whether it is a tree
}

func (l *listener) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all, l.paths = false, map[string]bool{}
}

func (l *listener) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	var m struct {
		Kind         string
		All          bool
		Paths, Trees []string
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || json.Unmarshal(body, &m) != nil || m.Kind != "changed" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.messages++
	l.all = l.all || m.All
	for _, p := range m.Paths {
		p = strings.TrimSuffix(p, "/")
		tree := l.paths[p]
		l.paths[p] = tree
	}
	for _, p := range m.Trees {
		l.paths[p] = true
	}
}

// settled waits until it is told nothing for a while: what comes then is of something new.
func (l *listener) settled(t *testing.T) {
	t.Helper()
	for last, quiet := -1, 0; quiet < 20; quiet++ {
		l.mu.Lock()
		if l.messages != last {
			last, quiet = l.messages, 0
		}
		l.mu.Unlock()
		<-time.After(100 * time.Millisecond)
	}
}

// missing is the first path of which it was told nothing.
func (l *listener) missing(differ []string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, path := range differ {
		if _, ok := l.paths[path]; !ok && !l.all && !l.tree(path) {
			return path
		}
	}
	return ""
}

func (l *listener) tree(path string) bool {
	for ; path != "."; path = filepath.Dir(path) {
		if l.paths[path] {
			return true
		}
	}
	return false
}

// look is what a tree holds.
func look(t *testing.T, root string) map[string]string {
	t.Helper()
	list := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || rel == "." {
			return err
		}
		if rel == ".georep" {
			return filepath.SkipDir
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		list[rel] = fi.Mode().String()
		if fi.Mode().IsRegular() {
			text, err := os.ReadFile(path)
			list[rel] += string(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func differences(a, b map[string]string) (list []string) {
	for path, text := range a {
		if b[path] != text {
			list = append(list, path)
		}
	}
	for path := range b {
		if _, ok := a[path]; !ok {
			list = append(list, path)
		}
	}
	return list
}

// TestChangedIsTold: whatever has changed on the slave between two moments a hook is told of, or of all, also when worker and
// monitor are killed in between.
func TestChangedIsTold(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	hook := &listener{paths: map[string]bool{}}
	server := httptest.NewServer(hook)
	defer server.Close()
	args := []string{master, "file://" + slave}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, args...), more...)
	}
	p.ok(with("start", "--retry-max", "1s", "--settle", "0s", "--hook-url", server.URL, "--hook-changed")...)
	t.Cleanup(func() { p.run(with("stop")...) })
	inStep := func() { p.run(with("wait", "--timeout", "1m", "--ignore-hidden-writers")...).check(t, exitDone) }
	o := oracle.New(t, master, 7)
	kill := func(of func(status.Status) int) func() {
		return func() {
			pid := of(p.glance())
			syscall.Kill(pid, syscall.SIGKILL)
			p.until("the process to be gone", func() bool { return syscall.Kill(pid, 0) != nil })
		}
	}
	for i, cut := range []func(){nil, kill(func(st status.Status) int { return st.WorkerPid }), kill(func(st status.Status) int { return st.MonitorPid })} {
		if i == 0 { // there is something to remove, and what the beginning has to say of all has been said
			for range 100 {
				if err := o.Change(); err != nil {
					t.Fatal(err)
				}
			}
			inStep()
			p.write(filepath.Join(master, "stamp"), fmt.Sprint(i))
			inStep()
			hook.settled(t)
		}
		before := look(t, slave)
		hook.forget()
		for n := range 30 { // few, so that most names change once
			if err := o.Change(); err != nil {
				t.Fatal(err)
			}
			if n == 15 && cut != nil {
				cut()
			}
			if n%10 == 9 {
				from, to := filepath.Join(master, "d0"), filepath.Join(master, "moved")
				if err := os.Rename(from, to); err == nil {
					err = os.Rename(to, from)
					if err != nil {
						t.Fatal(err)
					}
				}
				p.mkdir(fmt.Sprintf("master/new%d-%d", i, n))
			}
		}
		if i == 2 {
			p.ok(with("start")...)
		}
		inStep()
		differ := differences(before, look(t, slave))
		if len(differ) < 5 {
			t.Fatalf("only %q changed", differ)
		}
		p.until(fmt.Sprintf("round %d: the hook to be told of %d paths", i, len(differ)), func() bool { return hook.missing(differ) == "" })
		hook.mu.Lock()
		if cut == nil && hook.all {
			t.Errorf("round %d: all was told, though nothing was killed", i)
		}
		hook.mu.Unlock()
	}
	p.ok(with("stop")...)
}

func (p *program) until(what string, ok func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("waiting for %s", what)
		}
	}
}
