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

// A batch whose contents come slowly over one stream must not hold up those that come over others, and one that never
// comes whole must not keep the session from its end.
func TestStagedBatchHoldsUpNobody(t *testing.T) {
	f, _ := newSeamed(t)
	never := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 1), "first"))
	second := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 2), "second"))
	if res, err := second(t.Context()); err != nil || res[0].Err != nil {
		t.Fatalf("what touches the same name waited: %v", err)
	}
	f.Content("a", "second")
	f.Tree.Close()
	if _, err := never(t.Context()); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
	f.StagingEmpty()
	f.Content("a", "second")
}

// A batch is committed although nobody waits for it any more.
func TestCommitWithoutAWait(t *testing.T) {
	f, _ := newSeamed(t)
	commit := stage(t, f, slavetest.Put("a", slavetest.Rec(1, 1), "content"))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := commit(ended); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	f.Apply(slavetest.Put("b", slavetest.Rec(2, 1), "")) // comes behind it
	f.Content("a", "content")
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
