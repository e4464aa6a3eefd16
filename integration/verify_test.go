package integration

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/integration/harness/tree"
	"georep/status"
)

// verified is what verify --json says.
type verified struct {
	Entries, Pending, Repaired, Left, Lost int64
	ByPolicy                               int64 `json:"by_policy"`
	Policy                                 string
	Differences                            []struct {
		Path  string
		Kinds []string
	}
}

func (s *session) verify(code int, more ...string) verified {
	s.t.Helper()
	r := s.run(append([]string{"verify", "--json", s.masterArg, s.spec}, more...)...)
	var v verified
	if err := json.Unmarshal([]byte(r.stdout), &v); err != nil || r.code != code {
		s.t.Fatalf("exit code %d, want %d (%v)\n%s%s", r.code, code, err, r.stdout, r.stderr)
	}
	return v
}

// outsiders are changes of the slave that no crawl looks for, each with the path that must be told and the kind.
func outsiders(t *testing.T, s *session) map[string]string {
	at := func(name string) string { return filepath.Join(s.slave, "d", name) }
	keep := func(name string, change func(path string) error) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Lstat(at(name), &st); err != nil {
			t.Fatal(err)
		}
		if err := change(at(name)); err != nil {
			t.Fatal(name, err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatal(err)
		}
	}
	keep("content", func(p string) error {
		f, err := os.OpenFile(p, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("X"), 3)
		return err
	})
	keep("mode", func(p string) error { return os.Chmod(p, 0o600) })
	keep("owner", func(p string) error { return os.Lchown(p, 12345, 54321) })
	keep("xattr", func(p string) error { return unix.Setxattr(p, "user.planted", []byte("x"), 0) })
	keep("acl", func(p string) error {
		out, err := exec.Command("setfacl", "-m", "u:4321:r", p).CombinedOutput()
		t.Log(string(out))
		return err
	})
	at3 := time.Unix(3, 3)
	for _, err := range []error{
		os.Chtimes(at("mtime"), at3, at3),
		os.Remove(at("missing")),
		os.WriteFile(at("extra"), []byte("not the master's"), 0o644),
		os.Remove(at("type")), os.Mkdir(at("type"), 0o755), os.WriteFile(at("type/inside"), nil, 0o644),
		os.Remove(at("target")), os.Symlink("elsewhere", at("target")),
		os.Remove(at("device")), unix.Mknod(at("device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// The second name gets an inode of its own, with all attributes, the records included.
	if out, err := exec.Command("sh", "-c", "cp -a --preserve=all "+at("link2")+" "+at("link.tmp")+" && mv "+at("link.tmp")+" "+
		at("link2")).CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	return map[string]string{"d/content": "content", "d/mode": "mode", "d/owner": "owner", "d/mtime": "mtime",
		"d/xattr": "xattrs", "d/acl": "acl", "d/missing": "missing", "d/extra": "extra", "d/type": "type",
		"d/target": "target", "d/device": "device", "d/link": "link"}
}

func (s *session) plantable() {
	s.t.Helper()
	dir := filepath.Join(s.master, "d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"content", "mode", "owner", "mtime", "xattr", "acl", "missing", "type", "link"} {
		writeFile(s.t, filepath.Join(dir, name), "the content of "+name)
	}
	for _, err := range []error{
		os.Link(filepath.Join(dir, "link"), filepath.Join(dir, "link2")),
		os.Symlink("somewhere", filepath.Join(dir, "target")),
		unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))),
		tree.Many(filepath.Join(s.master, "many"), 100, 10, 500),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestVerify plants each kind of difference on the slave behind the session's back, with the session running and without
// one: verify finds exactly those, and --repair mends them.
func TestVerify(t *testing.T) {
	for name, running := range map[string]bool{"beside the session": true, "no session runs": false} {
		t.Run(name, func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 256 << 20}))
			s := newSession(t, master, slave)
			if err := os.Mkdir(filepath.Join(master, "many"), 0o755); err != nil {
				t.Fatal(err)
			}
			s.plantable()
			if running {
				s.must(s.start())
				s.waitSynced()
			} else {
				// What changed within the clock's grain before a scan is marked once more by the next one.
				s.must(s.sync())
				s.must(s.sync())
			}
			if v := s.verify(0); len(v.Differences) > 0 || v.Pending > 0 || v.Entries < 112 {
				t.Fatalf("nothing was planted: %+v", v)
			}
			want := outsiders(t, s)
			v := s.verify(1)
			s.checkFound(v, want)
			if v := s.verify(1, "d/content"); len(v.Differences) != 1 || v.Entries != 1 {
				t.Errorf("one path: %+v", v)
			}
			if v := s.verify(0, "many"); len(v.Differences) > 0 {
				t.Errorf("another directory: %+v", v)
			}
			if v := s.verify(0, "--repair"); v.Left != 0 || v.Repaired < int64(len(want)) {
				t.Errorf("after the repair: %+v", v)
			}
			s.equal()
			if v := s.verify(0); len(v.Differences) > 0 || v.Pending > 0 {
				t.Errorf("after the repair: %+v", v)
			}
		})
	}
}

// checkFound wants all that was planted and nothing else, but for what it does to its directory.
func (s *session) checkFound(v verified, want map[string]string) {
	s.t.Helper()
	found := map[string][]string{}
	for _, d := range v.Differences {
		found[d.Path] = d.Kinds
	}
	for path, kind := range want {
		other := strings.Replace(path, "link", "link2", 1)
		if !slices.Contains(found[path], kind) && !slices.Contains(found[other], kind) {
			s.t.Errorf("%s: %s was not found; only %v", path, kind, found[path])
		}
		delete(found, path)
		delete(found, other)
	}
	delete(found, "d") // its mtime
	for path, kinds := range found {
		s.t.Errorf("%s: %v was not planted", path, kinds)
	}
}

// TestVerifyWhileItChanges: what is just changing is no difference.
func TestVerifyWhileItChanges(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100"))
	m, err := mutate.New(master, uint64(number(t, "GEOREP_SEED", 1)), mutate.Options{MaxEntries: 500, MaxFile: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), 300, 0); err != nil {
		t.Fatal(err)
	}
	s.waitSynced()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx, 0, 5*time.Millisecond); err != nil {
			t.Error(err)
		}
	})
	for range number(t, "GEOREP_VERIFIES", 1) {
		if v := s.verify(0); len(v.Differences) > 0 {
			t.Errorf("%+v", v)
		}
	}
	stop()
	wg.Wait()
	s.converge(m)
	if v := s.verify(0); len(v.Differences) > 0 || v.Pending > 0 {
		t.Errorf("at rest: %+v", v)
	}
}

// TestVerifyRefuses: one clear line each.
func TestVerifyRefuses(t *testing.T) {
	s := small(t)
	s.refused(s.run("verify", s.masterArg, s.spec), 1, "no such session")
	s.must(s.run(append([]string{"create", s.masterArg, s.spec}, s.flags()...)...))
	s.must(s.sync())
	s.refused(s.run("verify"), 2, "MASTER")
	s.refused(s.run("verify", s.masterArg, s.spec, "a/../b"), 1, "relative to the volume")
	s.refused(s.run("verify", s.masterArg, s.spec, "none"), 1, "neither on the master nor on the slave")
	s.refused(s.run("verify", "nothing", s.spec), 1, "nothing")
}

// TestVerifyKnowsWhatIsLost: what the slave's file system, or its user namespace, cannot show arrives without that, is told
// once, and is no difference that a repair would never settle.
func TestVerifyKnowsWhatIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		mkfs, lost string
		namespace  bool
	}{
		"small inodes":   {"128", "exact times", false},
		"user namespace": {"256", "some xattrs", true},
	} {
		t.Run(name, func(t *testing.T) {
			slave := fstest.Mount(t, fstest.Ext4, fstest.Options{Mkfs: []string{"-I", c.mkfs}})
			s := newSession(t, fstest.Mount(t, fstest.Ext4, fstest.Options{}), slave)
			at := func(name string) string { return filepath.Join(s.master, name) }
			whole := time.Unix(1_600_000_000, 0)
			for _, name := range []string{"plain", "odd"} {
				writeFile(t, at(name), name)
				for _, err := range []error{os.Chtimes(at(name), whole, whole), os.Chmod(at(name), 0o660)} {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if c.namespace {
				wrapper := filepath.Join(s.state, "in-namespace")
				writeFile(t, wrapper, "#!/bin/sh\nexec unshare -Ur "+binary+" \"$@\"\n")
				out, err := exec.Command("setfacl", "-m", "u:4321:rw", at("odd")).CombinedOutput()
				if err := errors.Join(err, os.Chmod(wrapper, 0o755), os.Lchown(at("plain"), 77, 77)); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				s.extra = append(s.extra, "--remote-georep", wrapper)
			} else {
				far := time.Date(2200, 1, 2, 3, 4, 5, 6, time.UTC)
				if err := os.Chtimes(at("odd"), far, far); err != nil {
					t.Fatal(err)
				}
			}
			s.must(s.start())
			began := time.Now()
			s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(began) })
			for _, name := range []string{"plain", "odd"} {
				if text, err := os.ReadFile(filepath.Join(slave, name)); string(text) != name {
					t.Errorf("%s: %q, %v", name, text, err)
				}
			}
			if st := s.status(); !strings.Contains(st.NotKept, c.lost) || len(st.Failures) > 0 {
				t.Errorf("not kept: %q; failures %v", st.NotKept, st.Failures)
			}
			if v := s.verify(0, "--repair"); len(v.Differences) > 0 || v.Pending > 0 || v.Lost == 0 || v.Repaired > 0 {
				t.Errorf("%+v", v)
			}
			if err := os.Chmod(filepath.Join(slave, "odd"), 0o604); err != nil {
				t.Fatal(err)
			}
			if v := s.verify(0, "--repair"); v.Repaired != 1 || v.Left != 0 {
				t.Errorf("after the mode was changed there: %+v", v)
			}
		})
	}
}
