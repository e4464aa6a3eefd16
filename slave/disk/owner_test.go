package disk

import (
	"os/exec"
	"path/filepath"
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

// claimer opens a directory as a slave.
func claimer(t *testing.T, root string, c slave.Claim) (slave.Tree, error) {
	o := testOptions(t, root)
	o.Master, o.Session, o.Proof, o.Force, o.Create = c.Master, c.Session, c.Proof, c.Force, true
	tree, err := Open(o)
	if err != nil {
		return nil, err
	}
	return tree, nil
}

func TestOwners(t *testing.T) {
	booksGone := func(f *slavetest.Owned) { f.Remove(".georep/pending") }
	adviceGone := func(f *slavetest.Owned) {
		for _, name := range []string{"links", "places", "parked", "staging", "partial", "lock"} {
			f.Remove(filepath.Join(".georep", name))
		}
	}
	filled := slave.Claim{Proof: slave.Proof{Filled: true}}
	forced := filled
	forced.Force = true
	slavetest.RunOwners(t, claimer,
		slavetest.OwnerCase{Name: "books gone", Befall: booksGone, Claim: filled, Named: true, Same: true},
		slavetest.OwnerCase{Name: "advice gone", Befall: adviceGone, Claim: filled, Named: true, Same: true, Believed: true},
		slavetest.OwnerCase{Name: "a copy", Befall: copied, Claim: filled, Named: true, Want: slave.ErrAbsent},
		slavetest.OwnerCase{Name: "a copy, a new session", Befall: copied},
		slavetest.OwnerCase{Name: "a copy, forced", Befall: copied, Claim: forced, Named: true})
}

// copied puts a copy with all xattrs in the slave's place, as of a backup that was restored.
func copied(f *slavetest.Owned) {
	if out, err := exec.Command("cp", "-a", f.Root, f.Root+".copy").CombinedOutput(); err != nil {
		f.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mv", f.Root, f.Root+".away").CombinedOutput(); err != nil {
		f.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mv", f.Root+".copy", f.Root).CombinedOutput(); err != nil {
		f.Fatalf("%v: %s", err, out)
	}
}

func TestGone(t *testing.T) { slavetest.RunGone(t, claimer) }

// TestSameRoot: what tells a root from a copy of it, and what the next boot may change.
func TestSameRoot(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"g1 1.000000005 f1", "g1 1.000000005 f1", true},
		{"g1 1.000000005 f1", "g1 1.000000005 f2", true}, // the device has another number now
		{"g1 1.000000005 f1", "g1 2.000000005 f1", false},
		{"g1 1.000000005 f1", "g2 1.000000005 f1", false},
		{"g1 0.000000000 f1", "g1 0.000000000 f1", true},
		{"g1 0.000000000 f1", "g1 0.000000000 f2", false},
		{"", "g1 1.000000005 f1", true},
		{"g1 1.000000005 f1", "", true},
	} {
		if got := sameRoot(c.a, c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}
