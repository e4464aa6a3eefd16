package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
	"georep/integration/harness/tree"
	"georep/status"
)

// refused checks a command that must fail: the exit code, and one line that has the words.
func (s *session) refused(r result, code int, words ...string) {
	s.t.Helper()
	line := strings.TrimSuffix(r.stderr, "\n")
	if r.code != code || strings.Contains(line, "\n") || line == "" {
		s.t.Errorf("exit code %d, want %d, and one line:\n%s", r.code, code, r.stderr)
	}
	for _, w := range words {
		if !strings.Contains(line, w) {
			s.t.Errorf("the message lacks %q:\n%s", w, r.stderr)
		}
	}
}

// small is a session with a few files, on tmpfs.
func small(t *testing.T) *session {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	if err := tree.Many(master, 30, 10, 100); err != nil {
		t.Fatal(err)
	}
	return s
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTrouble is the list of section 7 of the design: for each case one clear line with the cause and the remedy, the
// right exit code, and nothing lost.
func TestTrouble(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, s *session){
		"unknown host": func(t *testing.T, s *session) {
			writeFile(t, filepath.Join(s.state, "none"), "")
			s.refused(s.start("--known-hosts", filepath.Join(s.state, "none")), 1, "SHA256:", "known_hosts")
		},
		"wrong host key": func(t *testing.T, s *session) {
			other := newSession(t, t.TempDir(), t.TempDir())
			text, err := os.ReadFile(other.sshd.KnownHostsFile)
			if err != nil {
				t.Fatal(err)
			}
			wrong := strings.ReplaceAll(string(text), other.sshd.Addr()[strings.LastIndex(other.sshd.Addr(), ":"):],
				s.sshd.Addr()[strings.LastIndex(s.sshd.Addr(), ":"):])
			writeFile(t, filepath.Join(s.state, "wrong"), wrong)
			s.refused(s.start("--known-hosts", filepath.Join(s.state, "wrong")), 1, "SHA256:", "ssh-keygen", "-R")
		},
		"refused key": func(t *testing.T, s *session) {
			writeFile(t, s.sshd.AuthorizedKeys, "")
			s.refused(s.start(), 1, "ssh-copy-id")
		},
		"no georep there": func(t *testing.T, s *session) {
			s.refused(s.start("--remote-georep", "georep-is-not-here"), 1, "georep-is-not-here", "--remote-georep")
		},
		"another version there": func(t *testing.T, s *session) {
			old := filepath.Join(s.state, "old")
			writeFile(t, old, "#!/bin/sh\nprintf 'georep 0.0'\n")
			if err := os.Chmod(old, 0o755); err != nil {
				t.Fatal(err)
			}
			s.refused(s.start("--remote-georep", old), 1, "georep 0.0")
		},
		"a login banner": func(t *testing.T, s *session) {
			noisy := filepath.Join(s.state, "noisy")
			writeFile(t, noisy, "#!/bin/sh\necho 'Welcome to the slave'\necho\nexec "+binary+" \"$@\"\n")
			if err := os.Chmod(noisy, 0o755); err != nil {
				t.Fatal(err)
			}
			s.must(s.sync("--remote-georep", noisy))
			s.equal()
		},
		"unknown volume": func(t *testing.T, s *session) {
			s.spec = s.sshd.Host + "::nowhere"
			s.refused(s.start(), 1, "nowhere", "volume create")
		},
		"unknown master": func(t *testing.T, s *session) {
			s.masterArg = "nothing"
			s.refused(s.start(), 1, "nothing", "volume create")
		},
		"a slave inside its master": func(t *testing.T, s *session) {
			s.spec = s.sshd.Host + ":" + filepath.Join(s.master, "d000000")
			s.refused(s.start("--force"), 1, "lies in its master")
			s.refused(s.run("start", s.masterArg, "file://"+filepath.Join(s.master, "d000000")), 1)
		},
		"a master inside its slave": func(t *testing.T, s *session) {
			s.spec = s.sshd.Host + ":" + filepath.Dir(s.master)
			s.refused(s.start("--force"), 1, "lies in its slave")
		},
		"a slave that is not empty": func(t *testing.T, s *session) {
			writeFile(t, filepath.Join(s.slave, "mine"), "precious")
			s.refused(s.start(), 1, "not empty", "--force")
			if text, err := os.ReadFile(filepath.Join(s.slave, "mine")); err != nil || string(text) != "precious" {
				t.Errorf("the slave's file: %q, %v", text, err)
			}
		},
		"two masters on one slave": func(t *testing.T, s *session) {
			s.must(s.sync())
			second := t.TempDir()
			writeFile(t, filepath.Join(second, "f"), "other")
			s.masterArg = second
			s.refused(s.start(), 1, "another master")
		},
		"a second start": func(t *testing.T, s *session) {
			s.must(s.start())
			s.refused(s.start(), 1, "already running")
		},
		"usage": func(t *testing.T, s *session) {
			s.refused(s.run("start", s.masterArg), 2)
			s.refused(s.run("start", s.masterArg, "not a slave"), 2, "file://")
			s.refused(s.run("nonsense"), 2, "nonsense")
			s.refused(s.run("status", "--nonsense"), 2, "nonsense")
			s.refused(s.run("volume", "create", "-x", "/"), 2)
			s.refused(s.run("config", s.masterArg, s.spec, "max-delete", "no"), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := small(t)
			test(t, s)
		})
	}
}

// TestFaultyHeals is the same for a running session: Faulty, with the reason, until it heals by itself.
func TestFaultyHeals(t *testing.T) {
	for name, test := range map[string]struct {
		breaks, heals func(t *testing.T, s *session)
		reason        string
	}{
		"vanished master": {
			breaks: func(t *testing.T, s *session) { rename(t, s.master, s.master+".away") },
			heals:  func(t *testing.T, s *session) { rename(t, s.master+".away", s.master) },
			reason: "master",
		},
		"slave's host down": {
			breaks: func(t *testing.T, s *session) { s.sshd.Stop() },
			heals: func(t *testing.T, s *session) {
				if err := s.sshd.Restart(); err != nil {
					t.Fatal(err)
				}
			},
			reason: "127.0.0.1",
		},
		"a full disk": {
			breaks: func(t *testing.T, s *session) { fill(t, s) },
			heals: func(t *testing.T, s *session) {
				if err := os.Remove(filepath.Join(filepath.Dir(s.slave), "filler")); err != nil {
					t.Fatal(err)
				}
			},
			reason: "no space left",
		},
		"a read-only slave": {
			breaks: func(t *testing.T, s *session) {
				remount(t, s, unix.MS_RDONLY)
				writeFile(t, filepath.Join(s.master, "more"), "more")
			},
			heals:  func(t *testing.T, s *session) { remount(t, s, 0) },
			reason: "read-only",
		},
		"too much deleted": {
			breaks: func(t *testing.T, s *session) {
				if err := os.RemoveAll(filepath.Join(s.master, "bulk")); err != nil {
					t.Fatal(err)
				}
			},
			heals: func(t *testing.T, s *session) {
				s.must(s.run("config", s.masterArg, s.spec, "max-delete", "100"))
			},
			reason: "max-delete",
		},
	} {
		t.Run(name, func(t *testing.T) {
			master := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
			top := fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 64 << 20})
			slave := filepath.Join(top, "slave")
			inner := filepath.Join(master, "master")
			for _, d := range []string{slave, inner, filepath.Join(inner, "bulk")} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			s := newSession(t, inner, slave)
			if err := tree.Many(filepath.Join(inner, "bulk"), 1200, 100, 10); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(inner, "stays"), "stays")
			s.must(s.start("--retry-max", "1s"))
			s.waitSynced()
			test.breaks(t, s)
			st := s.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
			if !strings.Contains(st.Reason, test.reason) {
				t.Errorf("the reason lacks %q: %s", test.reason, st.Reason)
			}
			test.heals(t, s)
			s.waitStatus("healed", func(st status.Status) bool { return st.State == status.Active })
			s.waitSynced()
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// fill leaves less room on the slave's file system than the master's next file needs.
func fill(t *testing.T, s *session) {
	t.Helper()
	filler, err := os.Create(filepath.Join(filepath.Dir(s.slave), "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	var fs unix.Statfs_t
	if err := unix.Statfs(s.slave, &fs); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(int(filler.Fd()), 0, 0, int64(fs.Bavail-500)*fs.Bsize); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 8<<20)
	tree.Fill(big, 1)
	writeFile(t, filepath.Join(s.master, "big"), string(big))
}

func remount(t *testing.T, s *session, flags uintptr) {
	t.Helper()
	if err := unix.Mount("", filepath.Dir(s.slave), "", unix.MS_REMOUNT|flags, ""); err != nil {
		t.Fatal(err)
	}
}

// through puts a line between the session's master and its sshd, for the time of the test.
func (s *session) through(o proxy.Options) *proxy.Proxy {
	s.t.Helper()
	p, err := proxy.New(s.sshd.Addr(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { p.Close() })
	known, err := os.ReadFile(s.sshd.KnownHostsFile)
	if err != nil {
		s.t.Fatal(err)
	}
	port := s.sshd.Addr()[strings.LastIndex(s.sshd.Addr(), ":"):]
	via := p.Addr()[strings.LastIndex(p.Addr(), ":"):]
	s.sshd.KnownHostsFile = filepath.Join(s.state, "known")
	if err := os.WriteFile(s.sshd.KnownHostsFile, []byte(strings.ReplaceAll(string(known), port, via)), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.port = p.Port()
	return p
}

// TestProgressOfAFirstSync: over a slow line the status says how fast it goes and how long it takes; when the slave is
// in step there is no time left to tell.
func TestProgressOfAFirstSync(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	known := s.sshd.KnownHostsFile
	s.through(proxy.Options{Rate: 300 << 10, Window: 1 << 20})
	if err := tree.Many(master, 2000, 100, 32<<10); err != nil { // minutes of it
		t.Fatal(err)
	}
	s.must(s.start())
	st := s.waitStatus("rates and an ETA", func(st status.Status) bool {
		return st.ETASeconds > 0 && st.Rates.BytesWire > 0 && st.Rates.BytesContent > 0 && st.Rates.Files > 0
	})
	if left := float64(2000*32<<10) / st.Rates.BytesContent; st.ETASeconds > 10*left {
		t.Errorf("an ETA of %v s, though all of it would take %v s at %v a second", st.ETASeconds, left, st.Rates.BytesContent)
	}
	detail := s.must(s.run("status", "--detail")).stdout
	if !strings.Contains(detail, "files/s") || !strings.Contains(detail, "on the wire") {
		t.Errorf("the detail does not say how fast it goes:\n%s", detail)
	}
	s.must(s.run("stop", s.masterArg, s.spec))
	s.sshd.KnownHostsFile, s.port = known, s.sshd.Port // the LAN
	s.must(s.start())
	s.waitSynced()
	if st := s.status(); st.ETASeconds != 0 {
		t.Errorf("an ETA of %v s when the slave is in step", st.ETASeconds)
	}
}

// TestDeadConnections cuts and stalls the line; the session goes on by itself.
func TestDeadConnections(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	p := s.through(proxy.Options{})
	if err := tree.Many(master, 300, 30, 20000); err != nil {
		t.Fatal(err)
	}
	p.CutAfter(1 << 20)
	s.start("--retry-max", "1s") // may be cut while it starts
	for i := range 5 {
		writeFile(t, filepath.Join(master, "f"), strings.Repeat("x", i*1000))
		p.CutAfter(int64(i) * 700 << 10)
		pause(t, 200)
	}
	p.CutAfter(-1)
	s.waitSynced()
	p.Stall()
	writeFile(t, filepath.Join(master, "g"), "while nobody hears")
	s.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
	p.Cut()
	p.Resume()
	s.waitSynced()
}
