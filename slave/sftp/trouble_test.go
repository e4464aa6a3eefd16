package sftp

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/slavetest"
)

// TestRefused: each reason why a slave cannot be used is one line that says what to do, and leaves no trace.
func TestRefused(t *testing.T) {
	full := memory(t)
	if err := os.WriteFile(filepath.Join(full, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := memory(t)
	alive := leaseTimes{step: 20 * time.Millisecond, dead: leaseTime, poll: 20 * time.Millisecond}
	tree, err := open(t.Context(), options(t, mine, program, 1), alive)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for name, c := range map[string]struct {
		path   string
		change func(*Options)
		want   error
		says   string
	}{
		"not empty":      {full, func(*Options) {}, slave.ErrNotEmpty, "--force"},
		"no parent":      {filepath.Join(full, "no/such"), func(*Options) {}, slave.ErrNoVolume, "make the one above"},
		"a file":         {filepath.Join(full, "file"), func(*Options) {}, slave.ErrNoVolume, "not a directory"},
		"another master": {mine, func(o *Options) { o.Master = xtime.UUID{9} }, slave.ErrForeign, "--force"},
		"in use":         {mine, func(*Options) {}, slave.ErrBusy, "stop that first"},
		"not writable":   {"/proc", func(o *Options) { o.Force = true }, slave.ErrUnfit, "/proc"},
	} {
		o := options(t, c.path, program, 1)
		c.change(&o)
		l := quickLease
		if name == "in use" {
			l = alive
		}
		_, err := open(t.Context(), o, l)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if list, err := os.ReadDir(full); err != nil || len(list) != 1 {
		t.Errorf("a slave that was refused has %v, %v", list, err)
	}
}

// TestFewerSessions: whichever sessions the server takes, one is enough.
func TestFewerSessions(t *testing.T) {
	for taken := range 4 {
		o := options(t, memory(t), program, 3)
		inner := o.Open
		o.Open = func(ctx context.Context, number int) (io.ReadWriteCloser, error) {
			if number != taken {
				return nil, errors.New("no more sessions")
			}
			return inner(ctx, number)
		}
		tree, err := Open(t.Context(), o)
		if (err == nil) != (taken < 3) {
			t.Errorf("session %d is taken: %v", taken, err)
		}
		if err == nil {
			tree.Close()
		}
	}
}

// TestNoSymlinks: a server that makes none keeps them on record.
func TestNoSymlinks(t *testing.T) {
	root := memory(t)
	tree, err := Open(t.Context(), options(t, root, linkless, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	op := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "l", Record: slavetest.Rec(1, 1), Meta: slavetest.MetaOf(0o777)}
	op.Meta.Target = "elsewhere"
	if r := f.Must(op); r[0].Lost&slave.LostSymlink == 0 {
		t.Errorf("lost: %v", r[0].Lost)
	}
	f.Gone("l")
	if f.Record("l") != op.Record {
		t.Errorf("record %v", f.Record("l"))
	}
}

// TestParkedLeftover: what a cut left in the park, and nothing knows of, stands in nobody's way.
func TestParkedLeftover(t *testing.T) {
	root := memory(t)
	tree, err := Open(t.Context(), options(t, root, program, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	if err := os.MkdirAll(f.Path(parkedDir+"/"+slavetest.GFID(1).String()+"/full"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.Must(slavetest.Mkdir("d", slavetest.Rec(1, 0)), slavetest.Mkdir("d/e", slavetest.Rec(2, 0)))
	f.Must(slavetest.Park("d", slavetest.GFID(1)))
	f.Gone("d")
}
