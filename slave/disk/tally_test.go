package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/policy"
)

// TestCountOfWhatMoves: a master that moves, or removes, while it is counted what the slave holds makes it no less.
func TestCountOfWhatMoves(t *testing.T) {
	for name, move := range map[string]func(tree *Tree, dir string) error{
		"removed": func(tree *Tree, dir string) error {
			return tree.sys.rename(place{tree.dir, dir}, place{tree.parked, dir}, 0)
		},
		"moved": func(tree *Tree, dir string) error {
			return tree.sys.rename(place{tree.dir, dir}, place{tree.dir, dir + " is here now"}, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			dirs := []string{"a", "b", "c"}
			for _, dir := range dirs {
				fillDir(t, filepath.Join(root, dir), tallyStep)
			}
			o := testOptions(t, root)
			o.Force, o.Policy = true, policy.Policy{MaxEntries: 1 << 20}
			tree, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			u := tree.sys.used
			before := u.held.entries
			u.begin()
			held, err := tree.census.tally(tree.sys.used, 0, func() error {
				for _, dir := range dirs {
					if err := move(tree, dir); err != nil {
						return err
					}
				}
				dirs = nil
				return nil
			})
			if err != nil || dirs != nil {
				t.Fatal(err)
			}
			u.finish(held)
			if u.held.entries < before {
				t.Errorf("%d entries are held, %d before", u.held.entries, before)
			}
		})
	}
}

func fillDir(t *testing.T, dir string, n int) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUsageWithoutRoom: a slave without room for a block is opened, and goes on without the record.
func TestUsageWithoutRoom(t *testing.T) {
	o := testOptions(t, memory(t))
	o.Policy = policy.Policy{MaxBytes: 1 << 20}
	for _, full := range []bool{false, true} {
		tree, err := open(o, func(op, name string) error {
			if full && op == "write" && name == usageFile+".new" {
				return unix.ENOSPC
			}
			return nil
		})
		if err != nil {
			t.Fatalf("full: %v: %v", full, err)
		}
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
		_, err = os.Stat(filepath.Join(o.Path, slave.Reserved, usageFile))
		if there := err == nil; there == full {
			t.Errorf("full: %v: the record is there: %v", full, there)
		}
	}
}

// TestUsageIsSavedAgain: what could not be put on record is tried again, though nothing changes any more.
func TestUsageIsSavedAgain(t *testing.T) {
	for _, call := range []string{"write", "fsync", "rename"} {
		t.Run(call, func(t *testing.T) {
			o := testOptions(t, memory(t))
			o.Policy = policy.Policy{MaxBytes: 1 << 20}
			fails, failed := false, false
			tree := newTree(o, func(op, name string) error {
				if fails && op == call && strings.HasPrefix(name, usageFile+".new") {
					failed = true
					return unix.EIO
				}
				return nil
			})
			defer tree.release()
			if err := tree.setup(o); err != nil { // and nothing of it runs, which would save too
				t.Fatal(err)
			}
			u := tree.sys.used
			u.mu.Lock()
			u.add(room{entries: 1})
			held := u.held
			u.mu.Unlock()
			fails = true
			if err := tree.census.saveIfChanged(u); err == nil || !failed {
				t.Fatalf("%v, failed: %v", err, failed)
			}
			fails = false
			if err := tree.census.saveIfChanged(u); err != nil {
				t.Fatal(err)
			}
			if bytes, entries, known := Held(o.Path); !known || bytes != held.bytes || entries != held.entries {
				t.Errorf("on record are %d bytes, %d entries, %v; it holds %+v", bytes, entries, known, held)
			}
		})
	}
}
