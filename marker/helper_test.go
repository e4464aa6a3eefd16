package marker

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/beneath"
	"georep/marker/writers"
	"georep/marker/xtime"
)

// vol is a volume under test with, between start and stop, a marker in this process. Changes come from other processes,
// since a marker ignores its own.
type vol struct {
	t    testing.TB
	o    Options
	m    *marker
	stop func() error
	// looks: this test is about files that are held open. In all others nobody is looked for, which takes time.
	looks bool
	// wanderers are files that were in several directories: an inode is marked once more where a mark of it was tried
	// again, and its place then may be another than that of the event.
	wanderers []string
}

func newVol(t testing.TB, root string) *vol {
	t.Helper()
	v := &vol{t: t, o: Options{
		Root: root, UUID: xtime.NewUUID(), Namespace: xtime.Trusted, Dir: filepath.Join(t.TempDir(), "run"),
		Logger: zerolog.New(zerolog.NewTestWriter(t)), ScanPoll: 50 * time.Millisecond, MaxDelay: 50 * time.Millisecond,
	}}
	v.o.SaveVolumeMark = func(x xtime.Time) error { v.o.VolumeMark = x; return nil }
	t.Cleanup(func() {
		if v.stop != nil {
			v.halt()
		}
	})
	return v
}

// start runs a marker until halt; prepare may change it before.
func (v *vol) start(prepare ...func(*marker)) *vol {
	v.t.Helper()
	m, err := open(v.t.Context(), v.o)
	if err != nil {
		v.t.Fatal(err)
	}
	if m.live != nil {
		m.live.idle = 5 * time.Millisecond
	}
	if !v.looks {
		m.held.find = nobody{}
	}
	for _, p := range prepare {
		p(m)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	v.m, v.stop = m, func() error {
		cancel()
		err := <-ended
		return firstError(err, m.close())
	}
	return v
}

// nobody is a finder that finds nothing.
type nobody struct{}

func (nobody) Look(bool) ([]writers.File, string, error) { return nil, "", nil }

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *vol) halt() {
	v.t.Helper()
	err := v.stop()
	v.stop = nil
	if err != nil {
		v.t.Errorf("the marker ended with: %v", err)
	}
}

// settle waits until all that happened is marked.
func (v *vol) settle() {
	v.t.Helper()
	t0 := time.Now()
	if err := askLook(v.o.Dir); err != nil {
		v.t.Fatal(err)
	}
	v.until("everything is marked", func() bool { return v.m.beats.get().Time.After(t0) })
}

func (v *vol) until(what string, ok func() bool) {
	v.t.Helper()
	eventually(v.t, what, ok)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

// sh runs a script in the root, as another process.
func (v *vol) sh(script string) {
	v.t.Helper()
	shIn(v.t, v.o.Root, script)
}

// swap is what not every mv can do: it exchanges two entries.
const swap = "swap() { " + roleVar + "=swap " + paramsVar + `="$1 $2" /proc/` + "$PPID" + `/exe; }
`

func shIn(t testing.TB, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", swap+script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

// read is the output of a script.
func read(t testing.TB, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return string(out)
}

// xtime reads an entry's; "" is the root.
func (v *vol) xtime(path string) xtime.Time {
	v.t.Helper()
	root, err := beneath.OpenRoot(v.o.Root, false)
	if err != nil {
		v.t.Fatal(err)
	}
	defer root.Close()
	dir, name := beneath.Split(path)
	d, err := root.OpenPath(dir)
	if err != nil {
		v.t.Fatal(err)
	}
	defer d.Close()
	names := xtime.NamesFor(v.o.Namespace, v.o.UUID)
	x, err := d.Xtime(name, &names)
	if err != nil {
		v.t.Fatal(err)
	}
	return x
}

// all reads the xtimes of the whole tree.
func (v *vol) all() map[string]xtime.Time {
	v.t.Helper()
	all := map[string]xtime.Time{}
	err := filepath.WalkDir(v.o.Root, func(p string, _ os.DirEntry, err error) error {
		if err == nil {
			rel, _ := filepath.Rel(v.o.Root, p)
			if rel == "." {
				rel = ""
			}
			all[rel] = v.xtime(rel)
		}
		return err
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return all
}
