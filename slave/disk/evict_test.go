package disk

import (
	"context"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/policy"
	"georep/slave/slavetest"
)

func TestFull(t *testing.T) {
	ageless := func(t *testing.T, root string, c slave.Claim) (slave.Tree, error) {
		tree, err := claimer(t, root, c)
		if err == nil {
			tree.(*Tree).cleaner.age = 0
		}
		return tree, err
	}
	slavetest.RunFull(t, ageless, fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: slavetest.FullSize}))
}

// TestFullAndKept: what the slave's host wants to keep stays, whatever the master has to send. Inodes run out, too.
func TestFullAndKept(t *testing.T) {
	for name, tt := range map[string]struct {
		policy  policy.Policy
		options string
		goes    bool
	}{
		"append-only":  {policy.Policy{AppendOnly: true}, "", false},
		"keep-deleted": {policy.Policy{KeepDeleted: time.Hour}, "", false},
		"no policy":    {policy.Policy{}, "", true},
		"no inodes":    {policy.Policy{}, "nr_inodes=1000", true},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.Mount(t, fstest.Tmpfs, fstest.Options{Size: 8 << 20, MountOptions: tt.options})
			o := testOptions(t, root)
			o.Policy = tt.policy
			tree, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			tree.cleaner.age = 0
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
			size, n := 1<<20, 5
			if tt.options != "" {
				size, n = 1, 600
			}
			put := func(first int) (ops []slave.Op) {
				for i := range n {
					path := []string{"a", "b"}[first/1000] + "/" + slavetest.GFID(first+i).String()
					ops = append(ops, slavetest.Put(path, slavetest.Rec(first+i, 1), strings.Repeat("x", size)))
				}
				return ops
			}
			f.Must(slavetest.Mkdir("a", slavetest.Rec(9000, 0)), slavetest.Mkdir("b", slavetest.Rec(9001, 0)))
			for _, r := range f.Apply(put(0)...) {
				if r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			f.Must(slavetest.Park("a", slavetest.GFID(9000)))
			results, err := tree.Apply(context.Background(), &slave.Batch{Ops: put(1000)})
			if err != nil {
				t.Fatal(err)
			}
			failed := 0
			for _, r := range results {
				if r.Err != nil {
					failed++
					if !slave.Full(r.Err) {
						t.Errorf("it failed with %v", r.Err)
					}
				}
			}
			kept := parkedNames(t, tree)
			if tt.goes && (failed > 0 || kept > 0) || !tt.goes && (failed == 0 || kept != 1) {
				t.Errorf("%d failed, %d are parked still", failed, kept)
			}
		})
	}
}

// parkedNames counts what is parked.
func parkedNames(t *testing.T, tree *Tree) (n int) {
	t.Helper()
	if err := eachName(tree.parked, func(string) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}
