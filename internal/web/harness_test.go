package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/web/listen"
	"georep/status"
	"georep/volume"
)

// site is a server of sessions whose monitors this process plays.
type site struct {
	*testing.T
	store *volume.Store
	s     *server
	url   string
	made  []volume.Session
}

func newSite(t *testing.T) *site {
	t.Helper()
	store, err := volume.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := newServer(Options{Store: store, Log: zerolog.Nop(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := listen.Open(listen.Options{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	ts := httptest.NewServer(guard(d, s.routes()))
	t.Cleanup(ts.Close)
	return &site{T: t, store: store, s: s, url: ts.URL}
}

// volume makes one.
func (x *site) volume(name string) {
	x.Helper()
	if _, err := x.store.CreateVolume(volume.NewVolume{Name: name, Path: x.TempDir()}); err != nil {
		x.Fatal(err)
	}
}

// session makes one that runs, with that status.
func (x *site) session(master, slave string, st status.Status) volume.Session {
	x.Helper()
	to, err := volume.ParseSlave(slave)
	if err != nil {
		x.Fatal(err)
	}
	if _, err := x.store.CreateSession(volume.Session{Master: master, Slave: to}); err != nil {
		x.Fatal(err)
	}
	s, err := x.store.UpdateSession(master, to, func(s *volume.Session) error { s.Started = true; return nil })
	if err != nil {
		x.Fatal(err)
	}
	files := x.store.Files(master, to)
	pid, err := status.AcquirePid(files.Pid)
	if err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { pid.Close() })
	x.write(s, st)
	x.made = append(x.made, s)
	return s
}

func (x *site) write(s volume.Session, st status.Status) {
	x.Helper()
	st.MonitorPid, st.WorkerPid, st.Updated = os.Getpid(), os.Getpid(), status.Time{Time: time.Now()}
	if err := status.Write(x.store.Files(s.Master, s.Slave).Status, st); err != nil {
		x.Fatal(err)
	}
	x.s.source.mu.Lock()
	x.s.source.last = nil
	x.s.source.mu.Unlock()
}

// stopClock has all that is read from now on be of this moment: no slot of a history ends between two looks.
func (x *site) stopClock() time.Time {
	at := time.Now()
	x.s.source.now = func() time.Time { return at }
	return at
}

// get gives what is under a path, and wants that code.
func (x *site) get(path string, code int) string {
	x.Helper()
	r, err := http.Get(x.url + path)
	if err != nil {
		x.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		x.Fatal(err)
	}
	if r.StatusCode != code {
		x.Errorf("%s: %s, want %d\n%.500s", path, r.Status, code, b)
	}
	return string(b)
}

func active(lag float64) status.Status {
	st := status.New("", "")
	st.State, st.LagSeconds, st.LastSynced, st.StateSince = status.Active, lag, status.Time{Time: time.Now()}, status.Time{Time: time.Now()}
	st.Crawl, st.Marker = status.ChangelogCrawl, "fanotify"
	return st
}

// many makes that many sessions of one volume.
func (x *site) many(n int) {
	x.Helper()
	x.volume("data")
	for i := range n {
		st := active(float64(i % 7))
		if i%50 == 0 {
			st.State, st.Reason = status.Faulty, "connect to backup: connection refused; see whether sshd runs there"
		}
		st.Synced = status.Synced{Files: int64(i), BytesContent: 1 << 30}
		x.session("data", fmt.Sprintf("root@backup%d.example.org::copy", i), st)
	}
}
