package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/integration/harness/asuser"
	"georep/integration/harness/fstest"
	built "georep/integration/harness/program"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/internal/doctor"
	"georep/internal/sshserver"
	"georep/marker/xtime"
	"georep/volume"
)

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// host is a master, and a slave's host with an embedded server.
type host struct {
	dir     string
	store   *volume.Store
	volume  volume.Volume
	session volume.Session
}

func newHost(t *testing.T) *host {
	t.Helper()
	t.Setenv("SSH_AUTH_SOCK", "")
	t.Setenv("GEOREP_SSH_CONFIG", "none")
	h := &host{dir: t.TempDir()}
	program := h.at("georep")
	built.Link(t, program)
	server, err := sshserver.New(sshserver.Config{Handler: sshserver.Shell})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	to, err := volume.ParseSlave("127.0.0.1:" + h.at("slave"))
	if err != nil {
		t.Fatal(err)
	}
	h.session = volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()}
	err = errors.Join(os.Mkdir(h.at("data"), 0o755), os.WriteFile(h.at("id"), server.ClientKey(), 0o600),
		os.WriteFile(h.at("known"), []byte(server.KnownHostsLine()+"\n"), 0o600))
	for key, value := range map[string]string{"ssh-port": strconv.Itoa(server.Addr().(*net.TCPAddr).Port),
		"identity": h.at("id"), "known-hosts": h.at("known"), "remote-georep": program, "remote-state-dir": h.at("far")} {
		err = errors.Join(err, h.session.Set(key, value))
	}
	h.volume = volume.Volume{Name: "data", UUID: xtime.NewUUID().String(), Path: h.at("data")}
	if h.store, err = volume.OpenStore(h.at("state")); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *host) at(name string) string { return filepath.Join(h.dir, name) }

// look returns what the doctor tells of the session.
func (h *host) look(t *testing.T, to *volume.Session) (all []doctor.Finding, worst doctor.Level) {
	t.Helper()
	worst = doctor.Run(t.Context(), doctor.Options{Store: h.store, Volume: h.volume, Session: to, Version: "test",
		Logger: zerolog.Nop(), Tell: func(f doctor.Finding) {
			t.Logf("%-9s %-8s %-18s %s; %s", f.Place, f.Level, f.Check, f.Found, f.Remedy)
			all = append(all, f)
		}})
	return all, worst
}

// fill makes the slave one of another session of the same master, or of another.
func (h *host) fill(t *testing.T, v volume.Volume) {
	t.Helper()
	tree, err := connect.Slave(t.Context(), connect.Config{Session: h.session, Volume: v, Version: "test", Logger: zerolog.Nop(),
		Wire: new(atomic.Int64)})
	if err == nil {
		err = tree.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestStages breaks the way to the slave at each stage: that stage is the only problem, it says why, those before it are in
// order, and those behind it are not reached.
func TestStages(t *testing.T) {
	order := []string{"ssh configuration", "connection", "host key", "login", "line", "remote program", "slave"}
	set := func(key, value string) func(*testing.T, *host) {
		return func(t *testing.T, h *host) {
			if err := h.session.Set(key, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) func(*testing.T, *host) {
		return func(t *testing.T, h *host) {
			if err := os.WriteFile(h.at(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, c := range map[string]struct {
		broken func(*testing.T, *host)
		stage  string // "": nothing is wrong
		says   string
	}{
		"nothing, before the first sync": {func(*testing.T, *host) {}, "", ""},
		"nothing, filled":                {func(t *testing.T, h *host) { h.fill(t, h.volume) }, "", ""},
		"a key that others can read": {func(t *testing.T, h *host) {
			if err := os.Chmod(h.at("id"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "login", "chmod 600"},
		"nobody listens":  {set("ssh-port", "1"), "connection", "refused"},
		"unknown host":    {write("known", ""), "host key", "known_hosts"},
		"no georep there": {set("remote-georep", "/no/such/georep"), "remote program", "install georep"},
		"another's slave": {func(t *testing.T, h *host) {
			h.fill(t, volume.Volume{Name: "x", UUID: xtime.NewUUID().String(), Path: t.TempDir()})
		}, "slave", "another"},
		"no such volume":    {func(t *testing.T, h *host) { h.session.Slave.Path, h.session.Slave.Volume = "", "none" }, "slave", "none"},
		"the master itself": {func(t *testing.T, h *host) { h.session.Slave.Path = h.at("data") }, "slave", "overlap"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.broken(t, h)
			all, worst := h.look(t, &h.session)
			if want := map[bool]doctor.Level{true: doctor.OK, false: doctor.Problem}[c.stage == ""]; worst != want && worst != doctor.Warning || worst == doctor.Problem && c.stage == "" {
				t.Errorf("the worst is %s, want %s", worst, want)
			}
			var seen []string
			at := slices.Index(order, c.stage)
			for _, f := range all {
				i := slices.Index(order, f.Check)
				if f.Place != doctor.OfSlave || i < 0 {
					continue
				}
				seen = append(seen, f.Check)
				switch {
				case f.Check == c.stage && (f.Level != doctor.Problem || !strings.Contains(f.Found+f.Remedy, c.says)):
					t.Errorf("%s is %s, and lacks %q: %s; %s", f.Check, f.Level, c.says, f.Found, f.Remedy)
				case c.stage != "" && i > at && f.Level != doctor.Skipped:
					t.Errorf("%s, behind the problem, is %s", f.Check, f.Level)
				case (c.stage == "" || i < at) && (f.Level == doctor.Problem || f.Level == doctor.Skipped):
					t.Errorf("%s is %s: %s", f.Check, f.Level, f.Found)
				}
			}
			if !slices.Equal(seen, order) {
				t.Errorf("the stages are %q, want each once: %q", seen, order)
			}
		})
	}
}

// TestLocalSlave: a slave on this host is told of once, and is in order only where it is.
func TestLocalSlave(t *testing.T) {
	for name, c := range map[string]struct {
		broken func(t *testing.T, path string)
		level  doctor.Level
	}{
		"not there": {func(*testing.T, string) {}, doctor.Note},
		"not empty": {func(t *testing.T, path string) {
			if err := os.MkdirAll(filepath.Join(path, "somebody's"), 0o755); err != nil {
				t.Fatal(err)
			}
		}, doctor.Problem},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.broken(t, h.at("slave"))
			to, err := volume.ParseSlave("file://" + h.at("slave"))
			if err != nil {
				t.Fatal(err)
			}
			all, _ := h.look(t, &volume.Session{Master: "data", Slave: to, UUID: xtime.NewUUID().String()})
			var levels []doctor.Level
			for _, f := range all {
				if f.Place == doctor.OfSlave && f.Check == "slave" {
					levels = append(levels, f.Level)
				}
			}
			if !slices.Equal(levels, []doctor.Level{c.level}) {
				t.Errorf("the slave is %q, want %s", levels, c.level)
			}
		})
	}
}

// TestLooksOnly: what is looked at stays as it was, on both ends, but for the log of who came on the slave's host.
func TestLooksOnly(t *testing.T) {
	h := newHost(t)
	h.fill(t, h.volume)
	before := append(state(t, h.volume.Path), state(t, h.session.Slave.Path)...)
	h.look(t, &h.session)
	if after := append(state(t, h.volume.Path), state(t, h.session.Slave.Path)...); !slices.Equal(before, after) {
		t.Errorf("before %q, after %q", before, after)
	}
	if _, err := os.Stat(h.store.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the state directory was made: %v", err)
	}
}

// state lists what lies below a directory, with the change time of each.
func state(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil {
			err = unix.Lstat(path, &st)
		}
		all = append(all, fmt.Sprint(path, st.Ctim))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestMaster: what is wrong with the directory is found, and named by its check.
func TestMaster(t *testing.T) {
	for name, c := range map[string]struct {
		broken func(*testing.T, *host)
		check  string
		level  doctor.Level
	}{
		"nothing": {func(*testing.T, *host) {}, "directory", doctor.OK},
		"gone": {func(t *testing.T, h *host) {
			if err := os.Remove(h.volume.Path); err != nil {
				t.Fatal(err)
			}
		}, "directory", doctor.Problem},
		"replaced": {func(t *testing.T, h *host) {
			root, err := beneath.OpenRoot(t.TempDir(), true)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			id, err := root.Identity()
			if err != nil {
				t.Fatal(err)
			}
			h.volume.RootGFID = id.GFID.String()
		}, "directory", doctor.Problem},
		"read-only": {func(t *testing.T, h *host) {
			h.volume.Path = fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
			if err := unix.Mount("", h.volume.Path, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
		}, "file system", doctor.Problem},
		"full": {func(t *testing.T, h *host) {
			h.volume.Path = fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 1 << 20})
			if err := os.WriteFile(filepath.Join(h.volume.Path, "f"), make([]byte, 1<<20), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
		}, "file system", doctor.Warning},
		"a mount below": {func(t *testing.T, h *host) {
			below := filepath.Join(h.volume.Path, "below")
			if err := errors.Join(os.Mkdir(below, 0o755), unix.Mount("none", below, "tmpfs", 0, "")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(below, unix.MNT_DETACH) })
		}, "mounts", doctor.Note},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			c.broken(t, h)
			all, _ := h.look(t, nil)
			if !slices.ContainsFunc(all, func(f doctor.Finding) bool {
				return f.Place == doctor.OfMaster && f.Check == c.check && f.Level == c.level && f.Found != ""
			}) {
				t.Errorf("%s is not %s", c.check, c.level)
			}
		})
	}
}

// TestHost: a state directory that others may write to is a problem, and the limits and rights of an ordinary user are told.
func TestHost(t *testing.T) {
	if dir, here := asuser.Again(t); here {
		h := &host{dir: dir, volume: volume.Volume{}}
		var err error
		if h.store, err = volume.OpenStore(filepath.Join(dir, "state")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(h.store.Dir(), 0o755), os.Chmod(h.store.Dir(), 0o777)); err != nil {
			t.Fatal(err)
		}
		all, worst := h.look(t, nil)
		for check, level := range map[string]doctor.Level{"state directory": doctor.Problem, "privileges": doctor.Warning} {
			if !slices.ContainsFunc(all, func(f doctor.Finding) bool { return f.Check == check && f.Level == level && f.Remedy != "" }) {
				t.Errorf("%s is not %s", check, level)
			}
		}
		if worst != doctor.Problem {
			t.Errorf("the worst is %s", worst)
		}
	}
}
