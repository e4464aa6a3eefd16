package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"georep/internal/bandwidth"
)

func TestSessionRoundTrip(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	create(t, s, "data", mkdir(t, base, "data"))
	want := Session{Master: "data", Slave: Slave{User: "bob", Host: "::1", Path: "/a\nb\xff"}}
	for k, v := range map[string]string{"identity": "/k\xfe", "keep-deleted": "7d", "quick": "true", "max-delete": "5%",
		"bwlimit": "1.5M", "compression": "always"} {
		if err := want.Set(k, v); err != nil {
			t.Fatal(err)
		}
	}
	made, err := s.CreateSession(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.Session("data", want.Slave)
	if err != nil || !reflect.DeepEqual(got, made) || !reflect.DeepEqual(got.Config, want.Config) {
		t.Errorf("got %+v, %v; made %+v", got, err, made)
	}
	if _, err := s.CreateSession(want); !errors.Is(err, ErrSessionExists) {
		t.Errorf("the same again: %v", err)
	}
	up, err := s.UpdateSession("data", want.Slave, func(sess *Session) error {
		sess.Started, sess.Paused = true, true
		return sess.Reset("quick")
	})
	if err != nil || !up.Started || !up.Paused {
		t.Fatalf("update: %+v, %v", up, err)
	}
	if got, err = s.Session("data", want.Slave); err != nil || !reflect.DeepEqual(got, up) {
		t.Errorf("got %+v, %v; saved %+v", got, err, up)
	}
	o, err := got.Options()
	wantO := Options{LogLevel: "info", MaxDelete: 5, FreeDeletes: 1000, KeepDeleted: 7 * 24 * time.Hour, MarkerSource: "auto",
		ScanInterval: 24 * time.Hour, RetryMax: time.Minute, QuietPeriod: time.Second, MaxDelay: 5 * time.Second, Identity: "/k\xfe", RemoteGeorep: "georep", SyncJobs: 8, Hints: true,
		BWLimit: bandwidth.Constant(3 << 19), Compression: "always"}
	if err != nil || !reflect.DeepEqual(o, wantO) {
		t.Errorf("options %+v, %v; want %+v", o, err, wantO)
	}
	if list, err := s.Sessions(); err != nil || len(list) != 1 || !reflect.DeepEqual(list[0], up) {
		t.Errorf("Sessions: %+v, %v", list, err)
	}
}

func TestCreateSessionRefuses(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	data := mkdir(t, base, "srv", "data")
	create(t, s, "data", data)
	link := filepath.Join(base, "link")
	if err := os.Symlink(data, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		data: ErrOverlap, data + "/in/new": ErrOverlap, link: ErrOverlap, link + "/new": ErrOverlap, "/": ErrOverlap,
		filepath.Dir(data): ErrOverlap, data + "2": nil, base + "/copy": nil,
	} {
		if _, err := s.CreateSession(Session{Master: "data", Slave: Slave{Path: path}}); !errors.Is(err, want) {
			t.Errorf("slave %q: %v, want %v", path, err, want)
		}
	}
	slave := Slave{Host: "h", Volume: "v"}
	if _, err := s.CreateSession(Session{Master: "none", Slave: slave}); !errors.Is(err, ErrNoVolume) {
		t.Errorf("no master: %v", err)
	}
	bad := Session{Master: "data", Slave: slave, Config: map[string]string{"max-delete": "101"}}
	if _, err := s.CreateSession(bad); !errors.Is(err, ErrSyntax) {
		t.Errorf("bad value: %v", err)
	}
}

func TestDeleteSession(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	create(t, s, "data", mkdir(t, base, "data"))
	slave := Slave{Host: "h", Volume: "v"}
	if _, err := s.CreateSession(Session{Master: "data", Slave: slave}); err != nil {
		t.Fatal(err)
	}
	pid, err := TryLock(s.Files("data", slave).Pid, Exclusive)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSession("data", slave); !errors.Is(err, ErrSessionBusy) {
		t.Errorf("delete while running: %v", err)
	}
	pid.Close()
	if err := s.DeleteSession("data", slave); err != nil {
		t.Error(err)
	}
	if err := s.DeleteSession("data", slave); !errors.Is(err, ErrNoSession) {
		t.Errorf("delete again: %v", err)
	}
	if _, err := s.Session("data", slave); !errors.Is(err, ErrNoSession) {
		t.Errorf("read again: %v", err)
	}
}

func TestCutShortDeletionLeavesNoPast(t *testing.T) {
	s, base := openStore(t), t.TempDir()
	create(t, s, "data", mkdir(t, base, "data"))
	slave := Slave{Host: "h", Volume: "v"}
	files := s.Files("data", slave)
	mkdir(t, files.Dir)
	if err := os.WriteFile(files.Status, []byte("{}"), fileMode); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Sessions(); err != nil || len(list) != 0 {
		t.Errorf("Sessions: %v, %v", list, err)
	}
	if _, err := s.CreateSession(Session{Master: "data", Slave: slave}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(files.Status); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old status: %v", err)
	}
}

func TestConfigKeys(t *testing.T) {
	var s Session
	for _, k := range ConfigKeys() {
		if v, set, err := s.Get(k.Name); err != nil || set || v != k.Default {
			t.Errorf("Get(%s) = %q, %v, %v", k.Name, v, set, err)
		}
		if err := s.Set(k.Name, k.Default); err != nil {
			t.Errorf("the default of %s: %v", k.Name, err)
		}
		if v, set, err := s.Get(k.Name); err != nil || !set || v != k.Default {
			t.Errorf("Get(%s) = %q, %v, %v", k.Name, v, set, err)
		}
		if k.Doc == "" {
			t.Errorf("%s has no doc", k.Name)
		}
	}
	for key, values := range map[string][]string{
		"log-level": {"", "loud"}, "max-delete": {"-1", "101", "x", ""}, "keep-deleted": {"-1s", "x", "d", "-1d", "1.5d"},
		"marker-source": {"kqueue"}, "scan-interval": {"59s"}, "retry-max": {"0", "0.5s"}, "quiet-period": {"-1s", "x"}, "max-delay": {"0", "99ms"}, "ssh-port": {"-1", "65536"},
		"identity": {"\x00"}, "remote-georep": {""}, "sync-jobs": {"0", "17"}, "quick": {"maybe"}, "hints": {"true"},
		"bwlimit": {"", "-1", "500", "1.5", "10Mbit"}, "compression": {"", "on", "true"}, "nonsense": {"1"},
	} {
		for _, v := range values {
			err := s.Set(key, v)
			if !errors.Is(err, ErrSyntax) || strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("Set(%s, %q): %v", key, v, err)
			}
		}
	}
	if err := s.Set("scan-interval", "0"); err != nil {
		t.Errorf("no slow scan: %v", err)
	}
	if _, _, err := s.Get("nonsense"); !errors.Is(err, ErrSyntax) {
		t.Errorf("Get of nonsense: %v", err)
	}
	if err := s.Reset("nonsense"); !errors.Is(err, ErrSyntax) {
		t.Errorf("Reset of nonsense: %v", err)
	}
}

// What an earlier version wrote, and what people have in their scripts, goes on meaning the same.
func TestOldNamesOfKeys(t *testing.T) {
	for key, old := range map[string]string{"quiet-period": "settle"} {
		if _, err := findKey(key); err != nil || CurrentName(old) != key || !slices.Equal(OldNames(key), []string{old}) {
			t.Fatalf("%s was %s: %v, now %s, before %v", key, old, err, CurrentName(old), OldNames(key))
		}
		var s Session
		if err := s.Set(old, "3s"); err != nil {
			t.Fatal(err)
		}
		if o, err := s.Options(); err != nil || o.QuietPeriod != 3*time.Second {
			t.Errorf("%s as an option: %v, %v", old, o.QuietPeriod, err)
		}
		for _, name := range []string{key, old} {
			if v, set, err := s.Get(name); v != "3s" || !set || err != nil {
				t.Errorf("%s of %s: %q, %v, %v", name, old, v, set, err)
			}
		}
		if err := s.Reset(old); err != nil || len(s.Config) != 0 {
			t.Errorf("reset: %v, and %v is left", err, s.Config)
		}
	}
	store := openStore(t)
	create(t, store, "data", mkdir(t, t.TempDir(), "data"))
	slave := Slave{Host: "h", Path: "/s"}
	if _, err := store.CreateSession(Session{Master: "data", Slave: slave, Config: map[string]string{"quiet-period": "7s"}}); err != nil {
		t.Fatal(err)
	}
	file := store.Files("data", slave).Session
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before := strings.ReplaceAll(string(text), "quiet-period", "settle")
	if before == string(text) {
		t.Fatalf("no quiet-period in %s", text)
	}
	if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := store.Session("data", slave); err != nil || s.Config["quiet-period"] != "7s" || len(s.Config) != 1 {
		t.Errorf("a file of an earlier version: %v, %v", s.Config, err)
	}
}

func TestPortOfTheSlave(t *testing.T) {
	s := Session{Slave: Slave{Host: "h", Port: 2222, Path: "/p"}}
	if err := s.Set("ssh-port", "22"); !errors.Is(err, ErrSyntax) {
		t.Errorf("set: %v", err)
	}
	if o, err := s.Options(); err != nil || o.SSHPort != 2222 {
		t.Errorf("options: %+v, %v", o, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if busy, err := Locked(path, Exclusive); busy || err != nil {
		t.Errorf("missing file: %v, %v", busy, err)
	}
	one, err := TryLock(path, Shared)
	if err != nil {
		t.Fatal(err)
	}
	two, err := TryLock(path, Shared)
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := Locked(path, Shared); busy || err != nil {
		t.Errorf("shared: %v, %v", busy, err)
	}
	if busy, err := Locked(path, Exclusive); !busy || err != nil {
		t.Errorf("exclusive: %v, %v", busy, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := WaitLock(ctx, path, Exclusive); !errors.Is(err, ErrLocked) || !errors.Is(err, context.Canceled) {
		t.Errorf("wait: %v", err)
	}
	done := make(chan error)
	go func() {
		l, err := WaitLock(t.Context(), path, Exclusive)
		if err == nil {
			err = errors.Join(l.Close(), l.Close())
		}
		done <- err
	}()
	one.Close()
	two.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
