package worker_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/internal/connect"
	"georep/internal/worker"
	"georep/marker"
	"georep/monitor/report"
	"georep/slave"
	"georep/status"
	"georep/volume"
)

// empty fails the test where anything is in a directory, or the directory is not what it should be.
func empty(t *testing.T, dir string, there bool) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if len(list) > 0 || errors.Is(err, os.ErrNotExist) == there {
		t.Errorf("in the slave's place there is %v, %v", list, err)
	}
}

// TestSlaveIsAway: a session does not fill what stands in the place of the slave that it has filled, nor makes one there; it
// goes on when the slave is back, and begins anew at the operator's word.
func TestSlaveIsAway(t *testing.T) {
	c := setUp(t)
	sync := func(want error) {
		t.Helper()
		var err error
		c.Volume, err = c.Store.Volume("data")
		ok(t, err)
		if _, err = worker.Sync(t.Context(), worker.SyncConfig{Config: c}); !errors.Is(err, want) {
			t.Fatalf("sync: got %v, want %v", err, want)
		}
		if want != nil && connect.Final(err) {
			t.Errorf("it is not tried again soon: %v", err)
		}
	}
	write := func(name string) { ok(t, os.WriteFile(filepath.Join(c.Volume.Path, name), []byte(name), 0o644)) }
	has := func(name string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(slaveOf(c), name)); err != nil {
			t.Error(err)
		}
	}
	write("a")
	sync(nil)
	away := slaveOf(c) + ".away"
	ok(t, os.Rename(slaveOf(c), away))
	write("b")
	sync(slave.ErrAbsent)
	empty(t, slaveOf(c), false)
	ok(t, os.Mkdir(slaveOf(c), 0o755))
	sync(slave.ErrAbsent)
	empty(t, slaveOf(c), true)
	if _, err := worker.Verify(t.Context(), worker.VerifyConfig{Config: c}); !errors.Is(err, slave.ErrAbsent) {
		t.Errorf("verify: %v", err)
	}
	ok(t, os.Remove(slaveOf(c)))
	ok(t, os.Rename(away, slaveOf(c)))
	sync(nil)
	has("b")
	// An earlier version kept no name, but a status.
	ok(t, os.Rename(slaveOf(c), away))
	ok(t, os.Mkdir(slaveOf(c), 0o755))
	s, err := c.Store.Session(c.Session.Master, c.Session.Slave)
	ok(t, err)
	named := s.SlaveID
	forget(t, &c)
	sync(slave.ErrAbsent)
	empty(t, slaveOf(c), true)
	c.Force = true
	sync(nil)
	has("a")
	c.Force = false
	sync(nil)
	if s, err = c.Store.Session(c.Session.Master, c.Session.Slave); err != nil || s.SlaveID == named || s.SlaveID == "" {
		t.Errorf("the slave's name was %q and is %q, %v", named, s.SlaveID, err)
	}
	ok(t, os.RemoveAll(slaveOf(c)))
	ok(t, os.Rename(away, slaveOf(c)))
	sync(slave.ErrAbsent) // the old one is not that any more
}

// forget makes the session one that an earlier version had in step.
func forget(t *testing.T, c *worker.Config) {
	t.Helper()
	_, err := c.Store.UpdateSession(c.Session.Master, c.Session.Slave, func(s *volume.Session) error {
		s.SlaveID = ""
		return nil
	})
	ok(t, err)
	st := status.New(c.Session.Master, c.Session.Slave.String())
	st.LastSynced = status.Time{Time: time.Now()}
	ok(t, status.Write(c.Store.Files(c.Session.Master, c.Session.Slave).Status, st))
}

// TestSlaveGoesAway: a worker that has nothing to do notices it, and says why it ends.
func TestSlaveGoesAway(t *testing.T) {
	c := setUp(t)
	o, err := worker.MarkerOptions(c.Store, c.Volume, c.Logger)
	ok(t, err)
	_, err = marker.Once(t.Context(), o)
	ok(t, err)
	c.Volume, err = c.Store.Volume("data")
	ok(t, err)
	commands, monitor := io.Pipe()
	defer monitor.Close()
	reports, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		defer out.Close()
		ended <- worker.Run(t.Context(), c, commands, report.NewWriter(out))
	}()
	moved := false
	for d := report.NewDecoder(reports); ; {
		r, err := d.Next()
		if err != nil {
			break
		}
		if !moved && r.Progress != nil && r.Progress.Stime != 0 {
			ok(t, os.Rename(slaveOf(c), slaveOf(c)+".away"))
			ok(t, os.Mkdir(slaveOf(c), 0o755))
			moved = true
		}
	}
	select {
	case err := <-ended:
		if !errors.Is(err, slave.ErrAbsent) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	empty(t, slaveOf(c), true)
}
