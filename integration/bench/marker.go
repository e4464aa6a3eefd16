package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/marker"
	"georep/marker/fanotify"
	"georep/volume"
)

// perDirectory is how many files the load has in one directory at a time.
const perDirectory = 100

// churn is a load of little but metadata: in directory after directory files are created, written and closed, each gets
// another name, and every second one is removed. pace, where it is set, is called before each file.
func churn(dir string, files int, pace func(i int)) error {
	content := bytes.Repeat([]byte("x"), 100)
	for i := range files {
		if pace != nil {
			pace(i)
		}
		in := filepath.Join(dir, strconv.Itoa(i/perDirectory))
		if i%perDirectory == 0 {
			if err := os.Mkdir(in, 0o755); err != nil {
				return err
			}
		}
		name := filepath.Join(in, strconv.Itoa(i))
		if err := errors.Join(os.WriteFile(name+".new", content, 0o644), os.Rename(name+".new", name)); err != nil {
			return err
		}
		if i%2 == 1 {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// changesOf is how many changes churn makes: a creation with its content, a renaming, and half a removal a file.
func changesOf(files int) float64 { return 2.5 * float64(files) }

// marking is a volume whose marker runs now and then, and nothing else of georep's.
type marking struct {
	*session
	ctx   context.Context // of the row, which the marker may outlive a round of
	files int
	cmd   *exec.Cmd
	// What was seen in rounds that count: changes marked a second, and overflows of the kernel's queue.
	rate      []float64
	overflows int
	// Seconds of the processors that the load took, and the marker's whole life with it.
	loadWith, loadWithout, marker []float64
}

// processors is how long this process has kept them busy.
func processors() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// newMarking registers master and declares its marker used.
func newMarking(l *lab, t *host, master string, files int) *marking {
	m := &marking{session: &session{site: &site{lab: l}, state: t.TempDir(), master: master}, ctx: t.ctx, files: files}
	t.must(finish(m.georep(t.ctx, "volume", "create", "data", master)))
	store, err := volume.OpenStore(m.state)
	t.must(err)
	v, err := store.Volume("data")
	t.must(err)
	runtime, err := store.MakeRuntime(v.Name)
	t.must(err)
	users, err := volume.WaitLock(t.ctx, runtime.UsersLock, volume.Shared)
	t.must(err)
	t.Cleanup(func() {
		_ = m.off()
		users.Close()
	})
	return m
}

// on starts the marker where it does not run, and waits until it has marked all that there was before.
func (m *marking) on(ctx context.Context) error {
	if m.cmd == nil {
		cmd := m.georep(m.ctx, "marker", "--source", "fanotify", "data")
		if err := cmd.Start(); err != nil {
			return err
		}
		m.cmd = cmd
	}
	return m.scanned(ctx, time.Now())
}

// off ends it.
func (m *marking) off() error {
	if m.cmd == nil {
		return nil
	}
	cmd := m.cmd
	m.cmd = nil
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	_ = cmd.Wait() // that it was told to end may count as a failure
	m.marker = append(m.marker, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	return nil
}

// fresh makes room for a load.
func (m *marking) fresh() (string, error) {
	load := filepath.Join(m.master, "load")
	if err := os.RemoveAll(load); err != nil {
		return "", err
	}
	unix.Sync()
	return load, os.Mkdir(load, 0o755)
}

// marked makes a load while the marker runs, waits until all of it is marked, and gives how long the load took, how many
// changes a second were marked, and how often the kernel's queue overflowed.
func (m *marking) marked(ctx context.Context, pace func(int)) (took, rate float64, overflows int, err error) {
	dir, err := m.fresh()
	if err = errors.Join(err, m.on(ctx)); err != nil {
		return 0, 0, 0, err
	}
	before, begin, busy := m.overflowed(), time.Now(), processors()
	if took, err = clocked(func() error { return churn(dir, m.files, pace) }); err != nil {
		return took, 0, 0, err
	}
	if pace == nil {
		m.loadWith = append(m.loadWith, processors()-busy)
	}
	if err := m.scanned(ctx, time.Now()); err != nil {
		return took, 0, 0, err
	}
	ms, err := marker.ReadStatus(m.runtime())
	last := ms.HeartbeatXtime.Time() // of the last mark
	return took, changesOf(m.files) / max(last.Sub(begin).Seconds(), took), m.overflowed() - before, err
}

// overflowed counts what the marker's log says of the queue; there may be no log yet.
func (m *marking) overflowed() int {
	text, _ := os.ReadFile(filepath.Join(m.runtime(), "marker.log"))
	return bytes.Count(text, []byte("queue overflowed"))
}

func (m *marking) with(ctx context.Context, round int) (result, error) {
	took, rate, overflows, err := m.marked(ctx, nil)
	if round >= 0 {
		m.rate, m.overflows = append(m.rate, rate), m.overflows+overflows
	}
	return result{seconds: took}, err
}

func (m *marking) without(context.Context, int) (result, error) {
	load, err := m.fresh()
	if err = errors.Join(err, m.off()); err != nil {
		return result{}, err
	}
	busy := processors()
	took, err := clocked(func() error { return churn(load, m.files, nil) })
	m.loadWithout = append(m.loadWithout, processors()-busy)
	return result{seconds: took}, err
}

// dropped makes a load while nobody marks, but the kernel tells of changes as it does for the marker: what that alone
// costs.
func (m *marking) dropped(ctx context.Context, _ int) (result, error) {
	load, err := m.fresh()
	if err = errors.Join(err, m.off()); err != nil {
		return result{}, err
	}
	dir, err := os.Open(load)
	if err != nil {
		return result{}, err
	}
	defer dir.Close()
	events, err := fanotify.Open(int(dir.Fd()))
	if err != nil {
		return result{}, err
	}
	ended := make(chan error, 1)
	go func() { ended <- drop(ctx, events) }()
	took, err := clocked(func() error { return churn(load, m.files, nil) })
	events.Interrupt()
	err = errors.Join(err, <-ended, events.Close())
	return result{seconds: took}, err
}

// dropEach is how long events come together before they are dropped.
const dropEach = 20 * time.Millisecond

// drop reads events, as rarely as the marker does, until it is interrupted.
func drop(ctx context.Context, events *fanotify.Source) error {
	for {
		if err := events.Wait(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
			return err
		}
		if err := rest(ctx, dropEach); err != nil {
			return err
		}
		if _, err := events.Read(func(*fanotify.Event) {}); err != nil {
			return err
		}
	}
}

// sustained halves the rate of a load until the kernel's queue does not overflow.
func (m *marking) sustained(ctx context.Context, perFile time.Duration) (float64, error) {
	for ; ; perFile *= 2 {
		begin := time.Now()
		var bad error
		_, rate, overflows, err := m.marked(ctx, func(i int) {
			if i == 0 {
				begin = time.Now()
			}
			if i%50 == 0 && bad == nil { // a timer is coarse
				bad = rest(ctx, time.Until(begin.Add(time.Duration(i)*perFile)))
			}
		})
		if err = errors.Join(err, bad); err != nil || overflows == 0 {
			return rate, err
		}
	}
}

// markerRow: what the marker costs those who change files, and how fast it marks.
func markerRow(l *lab, t *host, rep *report) {
	files := l.scaled(50_000, 200)
	rates := table{title: "What the marker sustains", rows: [][]string{{"file system", "changes/s of the load", "marked/s",
		"overflows of the queue", "marked/s without one", "processor time of the load, with and without", "of the marker"}},
		note: "A change is a file created and written, renamed, or removed; each is up to three events. What overflows is " +
			"found by a scan."}
	for _, kind := range []string{fstest.Tmpfs, fstest.Ext4} {
		dir := fstest.Mount(t, kind, fstest.Options{Size: int64(files)*(8<<10) + 512<<20})
		m := newMarking(l, t, mkdir(t, dir, "master"), files)
		s := l.contest(t, contender{name: "with the marker", run: m.with}, contender{name: "without", run: m.without},
			contender{name: "events only, read and dropped", run: m.dropped})
		rep.lines = append(rep.lines, line{work: fmt.Sprintf("%s files created, renamed, half of them removed, on %s, while "+
			"the marker runs", thousands(files), kind), ours: s[0], peers: s[1:], unit: "s",
			goal: goal{"≤ 1.05 × without", func(l *line) bool { return l.ratio() <= 1.05 }}})
		if !s[0].ok() {
			continue
		}
		steady := median(m.rate)
		if m.overflows > 0 {
			t.must(l.within(t, func(ctx context.Context) (err error) {
				steady, err = m.sustained(ctx, time.Duration(2*s[0].mid()/float64(files)*1e9))
				return err
			}))
		}
		rates.rows = append(rates.rows, []string{kind, thousands(int(changesOf(files) / s[0].mid())),
			thousands(int(median(m.rate))), strconv.Itoa(m.overflows), thousands(int(steady)),
			number(median(m.loadWith)) + " s, " + quantity(median(m.loadWithout), "s"), quantity(median(m.marker), "s")})
	}
	rep.tables = append(rep.tables, rates)
}
