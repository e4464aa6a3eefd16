package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/integration/harness/compare"
	"georep/integration/harness/tree"
	"georep/internal/beneath"
	"georep/internal/worker"
	"georep/marker"
	"georep/monitor/report"
	"georep/volume"
)

// setUp registers a master and a local slave.
func setUp(t *testing.T) worker.Config {
	t.Helper()
	store, err := volume.OpenStore(t.TempDir())
	ok(t, err)
	top := t.TempDir()
	master, slave := filepath.Join(top, "master"), filepath.Join(top, "slave")
	ok(t, os.Mkdir(master, 0o755))
	ok(t, os.Mkdir(slave, 0o755))
	root, err := beneath.OpenRoot(master, true)
	ok(t, err)
	defer root.Close()
	id, err := root.Identity()
	ok(t, err)
	ns, err := root.ProbeNamespace()
	ok(t, err)
	_, err = store.CreateVolume(volume.NewVolume{Name: "data", Path: master, RootGFID: id.GFID.String(), FSID: id.FSID})
	ok(t, err)
	v, err := store.UpdateVolume("data", func(v *volume.Volume) error { v.Namespace = string(ns); return nil })
	ok(t, err)
	to, err := volume.ParseSlave("file://" + slave)
	ok(t, err)
	s, err := store.CreateSession(volume.Session{Master: v.Name, Slave: to})
	ok(t, err)
	_, err = store.MakeRuntime(v.Name)
	ok(t, err)
	return worker.Config{Store: store, Session: s, Volume: v, Version: "test", Logger: zerolog.New(zerolog.NewTestWriter(t))}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func slaveOf(c worker.Config) string { return c.Session.Slave.Path }

func TestSync(t *testing.T) {
	c := setUp(t)
	_, err := tree.OneOfEverything(c.Volume.Path)
	ok(t, err)
	for range 3 {
		c.Volume, err = c.Store.Volume("data")
		ok(t, err)
		p, err := worker.Sync(t.Context(), worker.SyncConfig{Config: c})
		if err != nil {
			t.Fatalf("%v\n%+v", err, p)
		}
		compare.MustEqual(t, c.Volume.Path, slaveOf(c), compare.Replica())
		ok(t, os.RemoveAll(filepath.Join(c.Volume.Path, "files")))
		ok(t, os.WriteFile(filepath.Join(c.Volume.Path, "new"), []byte(time.Now().String()), 0o600))
	}
}

// TestSyncOfWhatIsReplaced: a sync that ends well has brought over all that the master had when it began, though files are
// replaced again and again while it reads them.
func TestSyncOfWhatIsReplaced(t *testing.T) {
	c := setUp(t)
	const files = 12
	master := c.Volume.Path
	var version atomic.Int64
	save := func() {
		n := version.Add(1)
		path := filepath.Join(master, fmt.Sprint("f", n%files))
		ok(t, os.WriteFile(path+".new", fmt.Append(nil, n), 0o600))
		ok(t, os.Rename(path+".new", path))
	}
	for range files {
		save()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for ctx.Err() == nil {
			save()
			time.Sleep(2 * time.Millisecond) // or a loaded machine finds no moment to read one before it is replaced
		}
	})
	for range 2 {
		had := version.Load() - 1 // the last may not have its name yet
		var err error
		c.Volume, err = c.Store.Volume("data")
		ok(t, err)
		_, err = worker.Sync(t.Context(), worker.SyncConfig{Config: c})
		ok(t, err)
		for i := range int64(files) {
			b, err := os.ReadFile(filepath.Join(slaveOf(c), fmt.Sprint("f", i)))
			ok(t, err)
			if n, _ := strconv.ParseInt(string(b), 10, 64); n <= had-files {
				t.Errorf("f%d is version %d, and the master had %d of all when the sync began", i, n, had)
			}
		}
	}
}

// TestRun has a marker and a worker in this process.
func TestRun(t *testing.T) {
	c := setUp(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	o, err := worker.MarkerOptions(c.Store, c.Volume, c.Logger)
	ok(t, err)
	wg.Go(func() {
		if err := marker.Run(ctx, o); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	commands, monitor := io.Pipe()
	reports, out := io.Pipe()
	wg.Go(func() {
		defer out.Close()
		if err := worker.Run(ctx, c, commands, report.NewWriter(out)); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		for d := report.NewDecoder(reports); ; {
			if _, err := d.Next(); err != nil {
				return
			}
		}
	})
	// The marker drops events of its own process as echoes, so others must do the work.
	source := t.TempDir()
	_, err = tree.OneOfEverything(source)
	ok(t, err)
	ok(t, os.RemoveAll(filepath.Join(source, tree.LongTop))) // cp cannot do that
	run(t, "cp", "-a", source+"/.", c.Volume.Path)
	wait(t, c)
	ok(t, report.WriteCommand(monitor, report.Command{Verb: report.Pause}))
	run(t, "rm", "-r", filepath.Join(c.Volume.Path, "acl"))
	ok(t, report.WriteCommand(monitor, report.Command{Verb: report.Resume}))
	wait(t, c)
	monitor.Close() // the monitor is gone: the worker must end
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func wait(t *testing.T, c worker.Config) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := compare.Wait(ctx, c.Volume.Path, slaveOf(c), compare.Replica()); err != nil {
		t.Fatal(err)
	}
}
