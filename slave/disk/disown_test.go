package disk

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// TestStampOfAnotherIsGoneFirst: a directory becomes another GFID's. A power cut, behind which nothing is left of a change of xattrs
// that no sync followed, and all of what was done to names, must not leave the old stamp beside a content that it does not vouch for.
func TestStampOfAnotherIsGoneFirst(t *testing.T) {
	becomes := func(path string, from, to int) slave.Op {
		op := slavetest.Mkdir(path, slavetest.Rec(to, 0))
		op.Expect = slavetest.GFID(from)
		return op
	}
	for name, c := range map[string]struct {
		beside bool
		ops    []slave.Op
	}{
		"and gets an entry":  {false, []slave.Op{becomes("d", 10, 20), slavetest.Put("d/new", slavetest.Rec(21, 2), "new")}},
		"and loses an entry": {false, []slave.Op{becomes("d", 10, 20), slavetest.Park("d/a", slavetest.GFID(1))}},
		"where it comes to in the same batch": {false, []slave.Op{slavetest.Park("d", slavetest.GFID(10)), slavetest.Unpark("e", slavetest.Rec(10, 1)),
			becomes("e", 10, 20), slavetest.Put("e/new", slavetest.Rec(21, 2), "new")}},
		"with its record beside": {true, []slave.Op{becomes("d", 10, 20), slavetest.Put("d/new", slavetest.Rec(21, 2), "new")}},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newSeamed(t)
			f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)), slavetest.Put("d/a", slavetest.Rec(1, 1), "a"))
			f.Must(slavetest.Finish("d", slavetest.Rec(10, 1), 1))
			if c.beside {
				moveBeside(t, f, "d", slavetest.Rec(10, 1))
			}
			removed, synced, changed := false, false, false
			s.arm(func(_ int, op, name string) error {
				switch {
				case strings.HasPrefix(op, "removexattr ") || op == "symlink" && c.beside:
					removed = true
				case op == "syncfs":
					synced = removed
				case op == "rename" && (strings.HasSuffix(name, " to new") || strings.HasPrefix(name, "a to ")) && !changed:
					changed = true
					if !synced {
						t.Errorf("%s %s while the stamp may come back", op, name)
					}
				}
				return nil
			})
			results, err := f.Tree.Apply(t.Context(), &slave.Batch{Ops: c.ops})
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range results {
				if r.Err != nil {
					t.Errorf("operation %d: %v", i, r.Err)
				}
			}
			if calls := s.disarm(); !changed || t.Failed() {
				t.Errorf("nothing was changed in %q", calls)
			}
		})
	}
}

// moveBeside puts a record aside, as where an inode has no room.
func moveBeside(t *testing.T, f *slavetest.Fixture, path string, rec slave.Record) {
	t.Helper()
	tree := f.Tree.(*Tree)
	d, err := tree.openDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := tree.putBeside(place{d, ""}, rec); err != nil {
		t.Fatal(err)
	}
	for _, attr := range []string{tree.names.Xtime, tree.names.GFID} {
		if err := unix.Removexattr(f.Path(path), attr); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStampThatWaitsForAnother: the same where the old stamp was sent just before, and waits for the sync behind which the directory is to
// become another GFID's; and what is taken out of it goes first.
func TestStampThatWaitsForAnother(t *testing.T) {
	f, s := newSeamed(t)
	tree := f.Tree.(*Tree)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)), slavetest.Put("d/a", slavetest.Rec(1, 1), "a"))
	f.Must(slavetest.Finish("d", slavetest.Rec(10, 1), 1))
	becomes := slavetest.Mkdir("d", slavetest.Rec(20, 0))
	becomes.Expect = slavetest.GFID(10)
	next := make(chan error, 1)
	apply := func(ops ...slave.Op) error {
		results, err := f.Tree.Apply(t.Context(), &slave.Batch{Ops: ops})
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		return err
	}
	removed, synced, changed := false, false, false
	s.arm(func(_ int, op, name string) error {
		switch {
		case op == "rename" && strings.HasSuffix(name, " to b"): // the stamp waits when the next group begins
			go func() { next <- apply(slavetest.Park("d/a", slavetest.GFID(1)), becomes) }()
			waitQueued(t, tree)
		case strings.HasPrefix(op, "removexattr "):
			removed, synced = true, false
		case op == "syncfs":
			synced = removed
		case op == "rename" && strings.HasPrefix(name, "a to "):
			changed = true
			if _, err := unix.Getxattr(f.Path("d"), tree.names.Xtime, nil); err == nil || !synced {
				t.Error("an entry is taken out while the stamp is there, or may come back")
			}
		}
		return nil
	})
	if err := apply(slavetest.Put("d/b", slavetest.Rec(2, 2), "b"), slavetest.Finish("d", slavetest.Rec(10, 2), 2)); err != nil {
		t.Error(err)
	}
	if err := <-next; err != nil {
		t.Error(err)
	}
	if calls := s.disarm(); !changed || t.Failed() {
		t.Errorf("%q", calls)
	}
}

// waitQueued waits until the committer has something to take.
func waitQueued(t *testing.T, tree *Tree) {
	ready := func() bool {
		tree.queue.mu.Lock()
		defer tree.queue.mu.Unlock()
		return len(tree.queue.list) > 0 && tree.queue.list[0].ready
	}
	for deadline := time.Now().Add(time.Minute); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Error("nothing is queued")
			return
		}
	}
}
