package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/apply"
	"georep/slave/slavetest"
)

// filledSlave is a slave with a stamp on its root, closed. Its options open it again.
func filledSlave(t *testing.T, stamped bool) Options {
	t.Helper()
	f, _ := newSeamed(t)
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)), slavetest.Put("d/f", slavetest.Rec(11, 5), "content"))
	if stamped {
		f.Must(slavetest.Finish("d", slavetest.Rec(10, 5), 1), slavetest.Finish("", slavetest.Rec(4, 5), 1))
	}
	if err := f.Tree.Close(); err != nil {
		t.Fatal(err)
	}
	return testOptions(t, f.Root)
}

func promotion(o Options) PromoteOptions {
	return PromoteOptions{Path: o.Path, Volume: xtime.UUID{7}, By: "somebody", Lease: 200 * time.Millisecond}
}

// opens tells whether the slave's master is let in.
func opens(t *testing.T, o Options) error {
	t.Helper()
	tree, err := Open(o)
	if err == nil {
		err = tree.Close()
	}
	return err
}

// TestPromote: once it is promoted the master is refused, and told when and by whom; given back it is let in, and nothing on record is
// believed.
func TestPromote(t *testing.T) {
	o := filledSlave(t, true)
	p, err := Promote(context.Background(), promotion(o))
	if err != nil || p.Epoch != 1 || p.Already || p.Stime != slavetest.Rec(4, 5).Xtime || p.Master != o.Master || p.Session != o.Session {
		t.Fatalf("%v: %+v", err, p)
	}
	again, err := Promote(context.Background(), promotion(o))
	if err != nil || !again.Already || again.Promotion != p.Promotion {
		t.Errorf("again: %v: %+v", err, again)
	}
	if err := opens(t, o); !errors.Is(err, slave.ErrPromoted) {
		t.Errorf("the master: %v", err)
	}
	inspector, err := OpenInspector(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inspector.Distrust(context.Background(), []string{"d/f"}); !errors.Is(err, slave.ErrPromoted) {
		t.Errorf("distrust: %v", err)
	}
	if err := inspector.Close(); err != nil {
		t.Fatal(err)
	}
	was, err := Demote(context.Background(), promotion(o))
	if err != nil || was != p.Promotion {
		t.Fatalf("demote: %v: %+v", err, was)
	}
	if _, err := Demote(context.Background(), promotion(o)); !errors.Is(err, ErrNotPromoted) {
		t.Errorf("demote again: %v", err)
	}
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: o.Path}
	for _, path := range []string{"", "d", "d/f"} {
		if f.Record(path).Xtime != 0 {
			t.Errorf("%q is still believed", path)
		}
	}
}

// TestPromoteFailsAtEachStep: whichever call fails, the slave is promoted or follows its master, and the next try does all. So it does
// for the way back.
func TestPromoteFailsAtEachStep(t *testing.T) {
	for name, step := range map[string]struct {
		do    func(PromoteOptions, func(op, name string) error) error
		holds bool // before it
	}{
		"promote": {do: func(p PromoteOptions, hook func(op, name string) error) error {
			_, err := promote(context.Background(), p, hook)
			return err
		}},
		"demote": {holds: true, do: func(p PromoteOptions, hook func(op, name string) error) error {
			_, err := demote(context.Background(), p, hook)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				o := filledSlave(t, true)
				if step.holds {
					if _, err := Promote(context.Background(), promotion(o)); err != nil {
						t.Fatal(err)
					}
				}
				s := &seam{}
				s.arm(func(i int, _, _ string) error {
					if i == n {
						return unix.EIO
					}
					return nil
				})
				err := step.do(promotion(o), s.hook)
				if calls := s.disarm(); n >= len(calls) {
					if err != nil || n < 3 {
						t.Fatalf("%d calls, %v", n, err)
					}
					return
				}
				if err == nil {
					t.Fatalf("call %d failed without a word", n)
				}
				refused := errors.Is(opens(t, o), slave.ErrPromoted)
				if refused != step.holds {
					t.Errorf("call %d: promoted %v, and before it %v", n, refused, step.holds)
				}
				if err := step.do(promotion(o), nil); err != nil {
					t.Errorf("call %d, then once more: %v", n, err)
				}
			}
		})
	}
}

// TestPromoteWhileInUse: a slave that a session has open is not promoted under it.
func TestPromoteWhileInUse(t *testing.T) {
	o := filledSlave(t, true)
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Promote(context.Background(), promotion(o)); !errors.Is(err, slave.ErrBusy) {
		t.Errorf("open: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Promote(context.Background(), promotion(o)); err != nil {
		t.Error(err)
	}
}

// TestPromoteIncomplete: without a stamp on the root there is no moment that the copy has.
func TestPromoteIncomplete(t *testing.T) {
	o := filledSlave(t, false)
	if _, err := Promote(context.Background(), promotion(o)); !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v", err)
	}
	if err := opens(t, o); err != nil {
		t.Error(err)
	}
	forced := promotion(o)
	forced.Force = true
	if p, err := Promote(context.Background(), forced); err != nil || p.Stime != 0 {
		t.Errorf("forced: %v: %+v", err, p)
	}
}

// TestPromoteNoSlave: what is nobody's slave is not promoted, and nothing is made in it.
func TestPromoteNoSlave(t *testing.T) {
	dir := t.TempDir()
	if _, err := Promote(context.Background(), PromoteOptions{Path: dir, Volume: xtime.UUID{7}}); !errors.Is(err, slave.ErrNoVolume) {
		t.Errorf("got %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("%v: %v", err, list)
	}
}

// TestPromoteUnderALease: somebody who uses the slave by SFTP alone renews his lease, and is not overrun; a dead one's lease is no obstacle.
func TestPromoteUnderALease(t *testing.T) {
	o := filledSlave(t, true)
	lease := filepath.Join(o.Path, slave.Reserved, apply.Lease)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(lease, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := promotion(o)
	p.Lease = time.Minute
	write("other boot 1 1 1\n")
	told := make(chan error)
	go func() {
		_, err := Promote(context.Background(), p)
		told <- err
	}()
	for n := 2; ; n++ {
		write("other boot 1 1 " + string(rune('0'+n%10)) + "\n")
		select {
		case err := <-told:
			if !errors.Is(err, slave.ErrBusy) {
				t.Errorf("a living holder: %v", err)
			}
		case <-time.After(10 * time.Millisecond):
			continue
		}
		break
	}
	p.Lease = 300 * time.Millisecond
	if _, err := Promote(context.Background(), p); err != nil {
		t.Errorf("a dead holder: %v", err)
	}
	if _, err := os.Stat(lease); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("our own lease: %v", err)
	}
}
