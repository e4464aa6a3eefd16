package agenthost

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/policy"
	"georep/slave/slavetest"
	"georep/volume"
)

// world is a slave's host with one volume, and masters that log in to it.
type world struct {
	*testing.T
	store *volume.Store
	root  string
	host  *Host
}

func newWorld(t *testing.T) *world {
	t.Helper()
	store, err := volume.OpenStore(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, store: store, root: t.TempDir()}
	if _, err := store.CreateVolume(volume.NewVolume{Name: "copy", Path: w.root}); err != nil {
		t.Fatal(err)
	}
	w.host = &Host{Store: store, Volume: "copy", Login: Login{User: "root", From: "192.0.2.1 port 7"}, Version: "test", Log: zerolog.Nop()}
	return w
}

func (w *world) set(key, value string) {
	w.Helper()
	_, err := w.store.UpdateVolume("copy", func(v *volume.Volume) error {
		v.Policy = map[string]string{key: value}
		return nil
	})
	if err != nil {
		w.Fatal(err)
	}
}

// dial logs in as a master over the true protocol.
func (w *world) dial(h agent.Hello) (*agent.Client, error) {
	here, there := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		host := &agent.Host{Version: "test", Open: w.host.Open}
		_ = host.Serve(w.Context(), there)
	}()
	w.Cleanup(func() { _ = here.Close(); <-served })
	h.Version, h.Session, h.Volume = "test", xtime.UUID{2}, "copy"
	return agent.Dial(w.Context(), here, h)
}

func (w *world) login(h agent.Hello) *agent.Client {
	w.Helper()
	c, err := w.dial(h)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { _ = c.Close() })
	return c
}

func (w *world) apply(c *agent.Client, ops ...slave.Op) []slave.Result {
	w.Helper()
	results, err := c.Apply(w.Context(), &slave.Batch{Ops: ops})
	if err != nil {
		w.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil {
			w.Fatalf("%s %s: %v", ops[i].Kind, ops[i].Path, r.Err)
		}
	}
	return results
}

func (w *world) stat(path string) *syscall.Stat_t {
	w.Helper()
	st := new(syscall.Stat_t)
	if err := syscall.Lstat(filepath.Join(w.root, path), st); err != nil {
		w.Fatal(err)
	}
	return st
}

// events gives the kinds of events in the audit log.
func (w *world) events() (kinds []string, all []Event) {
	w.Helper()
	all, err := ReadAudit(w.store.Runtime("copy").AgentLog)
	if err != nil {
		w.Fatal(err)
	}
	for _, e := range all {
		kinds = append(kinds, e.Event)
	}
	return kinds, all
}

var first = agent.Hello{Master: xtime.UUID{1}}

// A master that somebody else has taken over opens the root to everybody, and plants a program and a device.
func TestTakenOverMaster(t *testing.T) {
	w := newWorld(t)
	w.host.Policy = policy.Policy{KeepRootMode: true, NoForce: true, NoSetuid: true, NoDevices: true, Master: policy.First}
	if err := os.Chmod(w.root, 0o750); err != nil {
		t.Fatal(err)
	}
	c := w.login(first)
	shell := slavetest.Put("shell", slavetest.Rec(2, 1), "#!/bin/sh")
	shell.Meta = slavetest.MetaOf(0o6755)
	capable := slavetest.Put("capable", slavetest.Rec(3, 1), "x")
	capable.Meta.Xattrs = []slave.Xattr{{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")}}
	disk := slave.Op{Kind: slave.OpNode, Entry: slave.BlockDev, Path: "disk", Record: slavetest.Rec(4, 1), Meta: slavetest.MetaOf(0o666)}
	disk.Meta.Rdev = 8 << 8
	group := slave.Op{Kind: slave.OpMkdir, Path: "group", Record: slavetest.Rec(5, 0), Meta: slavetest.MetaOf(0o2775)}
	open := slavetest.Finish("", slavetest.Rec(1, 1), 1)
	open.Meta = slavetest.MetaOf(0o777)
	open.Meta.UID, open.Meta.GID = 65534, 65534
	open.Meta.Xattrs = []slave.Xattr{{Name: "system.posix_acl_access", Value: acl(7, 7, 7)}}
	opened := slave.Op{Kind: slave.OpMkdir, Path: "", Record: slavetest.Rec(1, 0), Meta: open.Meta}
	results := w.apply(c, shell, capable, disk, group, opened, open)
	if st := w.stat(""); st.Mode&0o7777 != 0o750 || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the root is %o of %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
	}
	if st := w.stat("shell"); st.Mode&0o7777 != 0o755 {
		t.Errorf("shell is %o", st.Mode&0o7777)
	}
	if st := w.stat("group"); st.Mode&0o7777 != 0o2775 {
		t.Errorf("a directory's set-gid bit, which runs nothing, is gone: %o", st.Mode&0o7777)
	}
	if _, err := syscall.Getxattr(filepath.Join(w.root, "capable"), "security.capability", make([]byte, 64)); !errors.Is(err, syscall.ENODATA) {
		t.Errorf("the capability: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(w.root, "disk")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the device: %v", err)
	}
	for i, want := range []slave.Lost{slave.LostMode, slave.LostXattr, slave.LostDevice, 0, slave.LostOwner | slave.LostMode, slave.LostOwner | slave.LostMode} {
		if results[i].Lost&want != want || want == 0 && results[i].Lost != 0 {
			t.Errorf("operation %d: lost %q, want %q", i, results[i].Lost, want)
		}
	}
}

func acl(user, group, other byte) []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range [][2]byte{{1, user}, {4, group}, {32, other}} {
		b = append(b, e[0], 0, e[1], 0, 255, 255, 255, 255)
	}
	return b
}

// What takes the place of a file on the master, and is not made here, leaves no stale file behind.
func TestDeviceInPlaceOfAFile(t *testing.T) {
	w := newWorld(t)
	w.set("no-devices", "on")
	c := w.login(first)
	w.apply(c, slavetest.Put("x", slavetest.Rec(2, 1), "old"))
	node := slave.Op{Kind: slave.OpNode, Entry: slave.CharDev, Path: "x", Record: slavetest.Rec(3, 2), Meta: slavetest.MetaOf(0o600)}
	if res := w.apply(c, node); !res[0].Parked || res[0].Lost != slave.LostDevice {
		t.Errorf("%+v", res[0])
	}
	if _, err := os.Lstat(filepath.Join(w.root, "x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old file: %v", err)
	}
	w.apply(c, node) // again, as after a lost answer
}

func TestOwnerOfTheSlave(t *testing.T) {
	w := newWorld(t)
	w.set("owner", "1234:5678")
	c := w.login(first)
	op := slavetest.Put("x", slavetest.Rec(2, 1), "x")
	op.Meta = slavetest.MetaOf(0o4755)
	op.Meta.UID, op.Meta.GID = 0, 0
	if res := w.apply(c, op); res[0].Lost&slave.LostOwner == 0 {
		t.Errorf("%+v", res[0])
	}
	if st := w.stat("x"); st.Uid != 1234 || st.Gid != 5678 || st.Mode&0o7777 != 0o755 {
		t.Errorf("x is %o of %d:%d", st.Mode&0o7777, st.Uid, st.Gid)
	}
}

// parked counts what was removed and is still there.
func (w *world) parked() int {
	w.Helper()
	list, err := os.ReadDir(filepath.Join(w.root, slave.Reserved, "parked"))
	if err != nil {
		w.Fatal(err)
	}
	return len(list)
}

func TestWipe(t *testing.T) {
	for _, test := range []struct{ key, value string }{{"append-only", "on"}, {"keep-deleted", "7d"}} {
		t.Run(test.key, func(t *testing.T) {
			w := newWorld(t)
			w.set(test.key, test.value)
			c := w.login(first)
			w.apply(c, slavetest.Put("x", slavetest.Rec(2, 1), "x"), slavetest.Put("y", slavetest.Rec(3, 1), "y"))
			w.apply(c, slavetest.Park("x", slavetest.GFID(2)), slavetest.Park("y", slavetest.GFID(3)))
			for range 3 {
				if err := c.Clean(t.Context(), 0); err != nil {
					t.Fatal(err)
				}
			}
			if n := w.parked(); n != 2 {
				t.Errorf("%d of 2 removed files are kept", n)
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			w.waitFor(Ended)
			kinds, all := w.events()
			if want := []string{Began, Purged, Kept, Ended}; !slices.Equal(kinds, want) {
				t.Fatalf("on record: %v, want %v", kinds, want)
			}
			if all[1].Parked != 2 || !strings.Contains(all[2].Reason, test.key) || all[0].From != "192.0.2.1 port 7" ||
				all[0].Master != (xtime.UUID{1}).String() || all[0].Login != "root" {
				t.Errorf("%+v", all)
			}
		})
	}
}

// waitFor waits until the session's end is on record.
func (w *world) waitFor(kind string) {
	w.Helper()
	for w.Context().Err() == nil {
		if kinds, _ := w.events(); slices.Contains(kinds, kind) {
			return
		}
	}
	w.Fatalf("%s is not on record", kind)
}

func TestRefusals(t *testing.T) {
	other := agent.Hello{Master: xtime.UUID{7}}
	forced, inspector := first, first
	forced.Force, inspector.Inspect = true, true
	for name, test := range map[string]struct {
		policy policy.Policy
		set    string // a volume's key, on
		hello  agent.Hello
		words  []string
	}{
		"force":                   {policy.Policy{NoForce: true}, "", forced, []string{"--force", "no-force"}},
		"force, by the volume":    {policy.Policy{}, "no-force", forced, []string{"--force", "no-force"}},
		"read-only":               {policy.Policy{ReadOnly: true}, "", first, []string{"read-only", "verified"}},
		"read-only by the volume": {policy.Policy{}, "read-only", first, []string{"read-only", "verified"}},
		"another master":          {policy.Policy{Master: xtime.UUID{1}.String()}, "", other, []string{xtime.UUID{1}.String(), xtime.UUID{7}.String(), "--master"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if test.set != "" {
				w.set(test.set, "on")
			}
			w.host.Policy = test.policy
			_, err := w.dial(test.hello)
			if !errors.Is(err, slave.ErrPolicy) {
				t.Fatalf("%v, want %v", err, slave.ErrPolicy)
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q lacks %q", err, word)
				}
			}
			if kinds, all := w.events(); !slices.Equal(kinds, []string{Refused}) || all[0].Reason == "" || all[0].Force != test.hello.Force {
				t.Errorf("on record: %+v", all)
			}
			if list, err := os.ReadDir(w.root); err != nil || len(list) > 0 {
				t.Errorf("the slave has %v, %v", list, err)
			}
		})
	}
	t.Run("a read-only slave is verified", func(t *testing.T) {
		w := newWorld(t)
		c := w.login(first)
		w.apply(c, slave.Op{Kind: slave.OpMkdir, Record: slavetest.Rec(1, 0), Meta: slavetest.MetaOf(0o755)},
			slavetest.Put("x", slavetest.Rec(2, 1), "x"), slavetest.Finish("", slavetest.Rec(1, 1), 1))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		w.host.Policy.ReadOnly = true
		look := w.login(inspector)
		if states, err := look.Survey(t.Context(), []slave.Query{{}}); err != nil || len(states[0].Entries) == 0 {
			t.Errorf("%+v, %v", states, err)
		}
	})
}

// A login is the first master's that uses it, also in another process and after the slave was emptied.
func TestLoginIsBound(t *testing.T) {
	w := newWorld(t)
	w.host.Policy.Master = policy.First
	if err := w.login(first).Close(); err != nil {
		t.Fatal(err)
	}
	w.waitFor(Ended)
	if err := os.RemoveAll(filepath.Join(w.root, slave.Reserved)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.dial(agent.Hello{Master: xtime.UUID{7}}); !errors.Is(err, slave.ErrPolicy) || !strings.Contains(err.Error(), xtime.UUID{1}.String()) {
		t.Errorf("another master: %v", err)
	}
	w.host.Login.Key = "SHA256:another" // another key of the same user
	w.login(agent.Hello{Master: xtime.UUID{7}})
}

// The limit of a volume holds for what is in it, is on record once, and counts at once when it is raised.
func TestLimitOfTheVolume(t *testing.T) {
	w := newWorld(t)
	w.set("max-bytes", "64K")
	w.host.Policy.MaxEntries = 2 // of the key
	c := w.login(first)
	refused := func(op slave.Op) error {
		t.Helper()
		results, err := c.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{op}})
		if err != nil {
			t.Fatal(err)
		}
		return results[0].Err
	}
	large := slavetest.Put("large", slavetest.Rec(2, 1), strings.Repeat("x", 100_000))
	for range 2 {
		if err := refused(large); !errors.Is(err, slave.ErrLimit) || !slave.Full(err) || !strings.Contains(err.Error(), "max-bytes 64K") {
			t.Errorf("beyond the limit: %v", err)
		}
	}
	w.set("max-bytes", "1M")
	for end := time.Now().Add(time.Minute); refused(large) != nil; <-time.After(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the limit that was raised does not count")
		}
	}
	w.apply(c, slavetest.Put("small", slavetest.Rec(3, 1), "x"))
	if err := refused(slavetest.Put("third", slavetest.Rec(4, 1), "x")); err == nil || !strings.Contains(err.Error(), "max-entries 2") {
		t.Errorf("beyond the key's limit: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	w.waitFor(Ended)
	kinds, all := w.events()
	if want := []string{Began, Full, Ended}; !slices.Equal(kinds, want) || !strings.Contains(all[1].Reason, "max-bytes 64K") {
		t.Errorf("on record: %+v", all)
	}
}
