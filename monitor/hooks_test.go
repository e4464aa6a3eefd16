package monitor

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/events"
	"georep/status"
	"georep/volume"
)

// TestHooksOverKill: a hook that hangs holds nothing up, and over kill -9 of the monitor the other one is told of every event.
func TestHooksOverKill(t *testing.T) {
	var mu sync.Mutex
	told := map[uint64]events.Kind{}
	refuse := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var e struct {
			Seq, Lost uint64
			Kind      events.Kind
		}
		if err != nil || json.Unmarshal(body, &e) != nil || e.Lost != 0 {
			t.Errorf("%q: %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if refuse {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		told[e.Seq] = e.Kind
	}))
	defer server.Close()
	b := newBench(t)
	hang := filepath.Join(t.TempDir(), "hang")
	if err := os.WriteFile(hang, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	files := b.store.Files("data", testSlave)
	b.change(testSlave, func(s *volume.Session) error { return s.Set("hook-url", server.URL) })
	if err := Spawn(t.Context(), again("monitor", "", b.store.Dir()), files); err != nil {
		t.Fatal(err)
	}
	st := b.until("progress", func(st status.Status) bool { return st.State == status.Active && st.Stime == 5 })
	unix.Kill(st.MonitorPid, unix.SIGKILL)
	b.wait("the end of the monitor", func() bool { _, running := status.Running(files.Pid); return !running })
	mu.Lock()
	refuse = false
	mu.Unlock()
	b.change(testSlave, func(s *volume.Session) error { return s.Set("hook-command", hang) })
	end := b.run(config(b.store, testSlave, "", ""))
	b.until("Active", func(st status.Status) bool { return st.State == status.Active && st.MonitorPid == os.Getpid() })
	end()
	b.noneLeft()
	list, err := events.Read(files.Dir, 0)
	if err != nil || len(list) < 6 {
		t.Fatalf("%v, %v", list, err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, e := range list {
		if told[e.Seq] != e.Kind {
			t.Errorf("the hook was told nothing of %+v", e)
		}
	}
}
