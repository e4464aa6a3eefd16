package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"georep/slave"
	"georep/slave/slavetest"
)

func stage(t *testing.T, f *slavetest.Fixture, ops ...slave.Op) func(context.Context) ([]slave.Result, error) {
	t.Helper()
	commit, err := f.Tree.(*Tree).Stage(&slave.Batch{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

func TestCommitsInOrderOfStages(t *testing.T) {
	f, _ := newSeamed(t)
	first := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 1), "first"))
	second := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 2), "second"))
	other := stage(t, f, slavetest.Put("b", slavetest.Rec(2, 1), "other"))
	if res, err := other(t.Context()); err != nil || res[0].Err != nil {
		t.Fatalf("what touches other names must not wait: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := second(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	// The committer has looked again by the time that this is done.
	f.Apply(slavetest.Put("c", slavetest.Rec(4, 1), ""))
	f.Gone("a")
	if _, err := first(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The second was queued by its commit, although nobody waited.
	f.Apply(slavetest.Put("a/x", slavetest.Rec(3, 1), ""))
	f.Content("a", "second")
}

func TestFootprints(t *testing.T) {
	of := func(ops ...slave.Op) *footprint { return (&queue{}).begin(&slave.Batch{Ops: ops}).footprint() }
	rec := slavetest.Rec
	for _, c := range []struct {
		a, b slave.Op
		want bool
	}{
		{slavetest.Put("d/a", rec(1, 1), ""), slavetest.Put("d/b", rec(2, 1), ""), false},
		{slavetest.Put("d/a", rec(1, 1), ""), slavetest.Put("d/a", rec(2, 1), ""), true},
		{slavetest.Put("d/a", rec(1, 1), ""), slavetest.Put("e/a", rec(1, 1), ""), true},
		{slavetest.Put("d/e/a", rec(1, 1), ""), slavetest.Finish("d", rec(2, 1), 1), true},
		{slavetest.Put("d/e/a", rec(1, 1), ""), slavetest.Finish("", rec(2, 1), 1), true},
		{slavetest.Put("dd/a", rec(1, 1), ""), slavetest.Finish("d", rec(2, 1), 1), false},
		{slavetest.Park("a", slavetest.GFID(5)), slavetest.Unpark("b", rec(5, 1)), true},
		{slavetest.Link("a", "x/from", rec(5, 1), 2), slavetest.Park("x", slavetest.GFID(6)), true},
	} {
		if got := of(c.a).meets(of(c.b)); got != c.want {
			t.Errorf("%q and %q: %v", c.a.Path, c.b.Path, got)
		}
		if got := of(c.b).meets(of(c.a)); got != c.want {
			t.Errorf("%q and %q: %v", c.b.Path, c.a.Path, got)
		}
	}
}

func TestUncommittedIsDropped(t *testing.T) {
	f, _ := newSeamed(t)
	never := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 1), "x"))
	waits := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 2), "y"))
	ended := make(chan error)
	go func() {
		_, err := waits(context.Background())
		ended <- err
	}()
	f.Tree.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	if _, err := never(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	f.StagingEmpty()
	f.Gone("a")
}

// TestCloseWhileStaging closes the slave while a content still comes in.
func TestCloseWhileStaging(t *testing.T) {
	f, _ := newSeamed(t)
	begun, goOn := make(chan bool), make(chan bool)
	op := slavetest.Put("a", slavetest.Rec(1, 1), "")
	op.Open = func() (slave.Content, error) {
		begun <- true
		<-goOn
		return slavetest.Text("late"), nil
	}
	ended := make(chan error)
	go func() {
		_, err := f.Tree.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{op}})
		ended <- err
	}()
	<-begun
	f.Tree.Close()
	close(goOn)
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	f.StagingEmpty()
}

func TestLeftoversAreCleared(t *testing.T) {
	f, _ := newSeamed(t)
	f.Tree.Close()
	if err := os.WriteFile(filepath.Join(f.Root, ".georep/staging/left"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, _ = seamed(t, f.Root)
	f.StagingEmpty()
}
