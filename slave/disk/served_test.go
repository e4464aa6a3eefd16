package disk

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/slavetest"
)

// onFUSE opens a slave with a seam on a file system that a daemon serves.
func onFUSE(t *testing.T) (*slavetest.Fixture, *seam) {
	t.Helper()
	at := filepath.Join(t.TempDir(), "mnt")
	fstest.Bindfs(t, t.TempDir(), at)
	return seamed(t, at)
}

// TestDurableOnFUSE: only the fsync of a file reaches the disk there. Each content needs its own, before it gets its name; names and
// records need that of a fresh file, before a stamp.
func TestDurableOnFUSE(t *testing.T) {
	f, s := onFUSE(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)))
	var ops []slave.Op
	const many = fewFiles + 2
	for i := range many {
		ops = append(ops, slavetest.Put(fmt.Sprintf("d/%d", i), slavetest.Rec(i+1, 1), "content"))
	}
	s.arm(nil)
	f.Must(ops...)
	f.Must(slavetest.Finish("d", slavetest.Rec(10, 5), 1))
	calls := s.disarm()

	staged, synced := 0, map[string]bool{}
	names, stamps := false, 0 // names: some are not durable
	for _, call := range calls {
		op, name, _ := strings.Cut(call, " ")
		switch {
		case op == "fsync" && strings.HasPrefix(name, "sync-"):
			names = false
		case op == "fsync":
			synced[name] = true
		case op == "create" && !strings.HasPrefix(name, "sync-"):
			staged++
		case op == "rename":
			from, _, _ := strings.Cut(name, " to ")
			if names = true; !synced[from] {
				t.Errorf("%s: before its content is durable", call)
			}
		case op == "setxattr" && strings.HasSuffix(name, ".xtime "):
			if stamps++; names {
				t.Errorf("%s: while names below it are not durable", call)
			}
		}
	}
	if staged < many || stamps == 0 {
		t.Errorf("%d staged, %d stamps:\n%s", staged, stamps, strings.Join(calls, "\n"))
	}
}

// TestSyncFailsOnFUSE: each call that makes something durable there fails, and nothing is stamped for it.
func TestSyncFailsOnFUSE(t *testing.T) {
	f, s := onFUSE(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)))
	for i, failing := range []string{"syncfs ", "create sync-", "fsync sync-", "unlink sync-"} {
		rec := slavetest.Rec(10, uint64(5+i))
		failed := false
		s.arm(func(_ int, op, name string) error {
			if strings.HasPrefix(op+" "+name, failing) {
				failed = true
				return unix.EIO
			}
			return nil
		})
		f.Apply(slavetest.Finish("d", rec, uint32(i+1)))
		s.disarm()
		if got := f.Record("d").Xtime; !failed || got == rec.Xtime {
			t.Errorf("%s failed: %v; the stamp is %v", failing, failed, got)
		}
	}
	f.Must(slavetest.Finish("d", slavetest.Rec(10, 50), 9))
}

// TestLinksOnFUSE: libfuse gives each name of an inode attributes of its own in the kernel's cache, where the number of names is the one
// from before. A name that is counted out would keep the old content.
func TestLinksOnFUSE(t *testing.T) {
	f, _ := onFUSE(t)
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 1), "one"), 3))
	f.Must(slavetest.Link("b", "a", slavetest.Rec(1, 1), 3), slavetest.Link("c", "", slavetest.Rec(1, 1), 3))
	f.Must(slavetest.Linked(slavetest.Put("a", slavetest.Rec(1, 2), "two"), 3))
	for _, name := range []string{"a", "b", "c"} {
		f.Content(name, "two")
	}
}
