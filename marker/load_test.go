package marker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// The test binary starts itself for what must be another process.
const (
	roleVar   = "GEOREP_MARKER_TEST_ROLE" // load or marker
	paramsVar = "GEOREP_MARKER_TEST_PARAMS"
)

func TestMain(m *testing.M) {
	switch os.Getenv(roleVar) {
	case "load":
		loadMain()
	case "marker":
		markerMain()
	case "deep":
		deepMain()
	case "attrs":
		attrsMain()
	case "swap":
		swapMain()
	case "hold":
		holdMain()
	default:
		os.Exit(m.Run())
	}
}

// loadMain changes the tree below the working directory at random until its standard input ends, or for so many
// operations, with a pause in µs after each.
func loadMain() {
	seed, ops, pause := uint64(0), 0, 0
	fmt.Sscan(os.Getenv(paramsVar), &seed, &ops, &pause)
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(ops == 0)
	}()
	r := rand.New(rand.NewPCG(seed, 2))
	for n := 0; !stop.Load() && (ops == 0 || n < ops); n++ {
		randomOp(r)
		if pause > 0 {
			time.Sleep(time.Duration(pause) * time.Microsecond)
		}
	}
}

// randomOp ignores errors: names that are not there are part of the load.
func randomOp(r *rand.Rand) {
	dir := func() string {
		p := "."
		for range r.IntN(4) {
			p = filepath.Join(p, "d"+strconv.Itoa(r.IntN(4)))
		}
		return p
	}
	file := func() string { return filepath.Join(dir(), "f"+strconv.Itoa(r.IntN(6))) }
	switch r.IntN(13) {
	case 0, 1:
		_ = os.MkdirAll(dir(), 0o755)
	case 2:
		_ = os.Rename(filepath.Join(dir(), "d1"), filepath.Join(dir(), "d2"))
	case 3:
		_ = os.Rename(file(), file())
	case 4:
		_ = os.Remove(file())
	case 5:
		_ = os.Chmod(file(), 0o600|os.FileMode(r.IntN(8)))
	case 6:
		_ = os.RemoveAll(filepath.Join(dir(), "d3"))
	case 7:
		_ = os.Symlink(strconv.Itoa(r.Int()), file())
	case 8:
		_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir(), "d1"), unix.AT_FDCWD, filepath.Join(dir(), "d2"), unix.RENAME_EXCHANGE)
	default:
		_ = os.WriteFile(file(), []byte(strconv.Itoa(r.Int())), 0o644)
	}
}

const deepName, deepLevels = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", 60

// deepMain makes a file below a path longer than PATH_MAX.
func deepMain() {
	for range deepLevels {
		if err := errors.Join(os.Mkdir(deepName, 0o755), unix.Chdir(deepName)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	if err := os.WriteFile("end", nil, 0o644); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// swapMain exchanges two entries.
func swapMain() {
	var a, b string
	fmt.Sscan(os.Getenv(paramsVar), &a, &b)
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// startSelf starts this binary in a role; end tells it to end and waits.
func startSelf(t testing.TB, role, dir, params string) (cmd *exec.Cmd, end func()) {
	t.Helper()
	cmd = exec.Command("/proc/self/exe")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), roleVar+"="+role, paramsVar+"="+params)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// markerMain runs a marker until it is killed.
func markerMain() {
	var p markerParams
	if err := json.Unmarshal([]byte(os.Getenv(paramsVar)), &p); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o := Options{Root: p.Root, UUID: p.UUID, Namespace: p.Namespace, Dir: p.Dir, VolumeMark: p.VolumeMark,
		Source: p.Source, Logger: zerolog.Nop()}
	o.SaveVolumeMark = func(xtime.Time) error { return errors.New("the volume mark must not change here") }
	if p.VolumeMark == 0 {
		o.SaveVolumeMark = nil
	}
	run := func() error { return Run(contextOfStdin(), o) }
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type markerParams struct {
	Root, Dir, Source string
	UUID              xtime.UUID
	Namespace         xtime.Namespace
	VolumeMark        xtime.Time
}

// entryState is what a change of an entry shows in.
type entryState struct {
	ino, dev    uint64
	size        int64
	mode        uint32
	mtime       beneath.Time
	xtime       xtime.Time
	parentXtime xtime.Time
	// ownParent: this name alone leads there, and always did.
	ownParent bool
}

// states describes every entry below the root, the root as ".".
func (v *vol) states() map[string]entryState {
	v.t.Helper()
	all := map[string]entryState{}
	for path, x := range v.all() {
		bumped := false
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(v.o.Root, path), &st); err != nil {
			v.t.Fatal(err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR && x == 0 {
			x, bumped = v.seenAs(path), true // one that took no mark was given a later ctime, by which a crawl goes there
		}
		s := entryState{ino: st.Ino, dev: st.Dev, size: st.Size, mode: st.Mode, xtime: x,
			mtime: beneath.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}}
		s.ownParent = !slices.Contains(v.wanderers, path) && (st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink == 1)
		if dir, _ := beneath.Split(path); path != "" {
			s.parentXtime = v.seenAs(dir)
			if bumped { // which is later than the xtime of that mark; what lies above was marked after it, as its own ctime tells
				s.parentXtime = max(s.parentXtime, v.ctime(dir))
			}
		}
		all[path] = s
	}
	return all
}

// checkChanges fails where an entry differs from before without a newer xtime, or has a newer one than a directory
// above it: both would hide a change from a crawl.
func (v *vol) checkChanges(before map[string]entryState) {
	v.t.Helper()
	changed := 0
	for path, s := range v.states() {
		b, had := before[path]
		same := had && b.ino == s.ino && b.size == s.size && b.mode == s.mode && b.mtime == s.mtime
		if !same {
			changed++
		}
		if !same && had && b.ino == s.ino && s.xtime <= b.xtime {
			v.t.Errorf("%q changed, but its xtime %v is not newer than %v", path, s.xtime, b.xtime)
		}
		if path != "" && s.xtime > s.parentXtime && s.ownParent {
			v.t.Errorf("%q has the xtime %v, its directory only %v", path, s.xtime, s.parentXtime)
		}
		if !same && !had && s.xtime == 0 && s.parentXtime <= v.o.VolumeMark {
			v.t.Errorf("%q is new, but nothing tells", path)
		}
	}
	if changed == 0 {
		v.t.Error("the load changed nothing: the test tests nothing")
	}
}

func TestRandomLoad(t *testing.T) {
	eachEvents(t, func(t *testing.T, source, dir string) {
		v := newVol(t, dir)
		v.o.Source = source
		v.start()
		for seed := range 2 {
			v.settle()
			before := v.states()
			_, end := startSelf(t, "load", dir, fmt.Sprint(seed, " ", 5000))
			end()
			v.quiet()
			v.checkChanges(before)
		}
	})
}

// TestOrderOfAMark (invariant 1): whoever reads T on a directory has every mark up to T below it: any xtime that shows
// up there afterwards is later than T.
func TestOrderOfAMark(t *testing.T) {
	for _, source := range []string{SourceFanotify, SourceInotify} {
		t.Run(source, func(t *testing.T) { testOrderOfAMark(t, source) })
	}
}

func testOrderOfAMark(t *testing.T, source string) {
	dir := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	v := newVol(t, dir)
	v.o.Source = source
	const deep = "d0/d1/d2"
	v.sh("mkdir -p " + deep + "; for i in 0 1 2 3 4 5; do echo > f$i; echo > d0/f$i; echo > " + deep + "/f$i; done")
	v.start().settle()
	for range 2 {
		cmd := exec.Command("sh", "-c", `while read -t 0 x || true; do for i in 0 1 2 3 4 5; do
			echo x > f$i; echo x > d0/f$i; echo x > d0/d1/d2/f$i; chmod 755 d0/d1; done; done`)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		v.watchOrder([]string{"", "d0", "d0/d1", deep}, deep)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		v.settle()
	}
}

// watchOrder reads directories from the top, then what lies below, again and again.
func (v *vol) watchOrder(dirs []string, deep string) {
	v.t.Helper()
	below := append([]string{}, dirs[1:]...)
	for i := range 6 {
		below = append(below, fmt.Sprintf("%s/f%d", deep, i))
	}
	last := map[string]xtime.Time{}
	bound := xtime.Time(0)
	moved := 0
	for range 1000 {
		top := v.xtime("")
		for _, path := range below {
			x := v.xtime(path)
			if old, seen := last[path]; seen && x != old {
				moved++
				if x <= bound {
					v.t.Fatalf("%q got %v after the root had shown %v", path, x, bound)
				}
			}
			last[path] = x
		}
		bound = top
	}
	if moved == 0 {
		v.t.Error("nothing was marked meanwhile: the test tests nothing")
	}
}

// TestKilledMarker kills the marker at random moments under load; the next start finds what it did not mark.
func TestKilledMarker(t *testing.T) {
	for _, c := range [][2]string{{fstest.Ext4, SourceFanotify}, {fstest.Tmpfs, SourceFanotify}, {fstest.XFS, SourceScan},
		{fstest.Ext4, SourceInotify}, {fstest.Overlay, SourceInotify}} {
		t.Run(c[0]+" "+c[1], func(t *testing.T) {
			dir := fstest.Mount(t, c[0], fstest.Options{})
			v := newVol(t, dir)
			v.o.Source = c[1]
			v.start().quiet()
			v.halt()
			before := v.states()
			_, end := startSelf(t, "load", dir, "7 0")
			for range 12 {
				v.killOne(time.Duration(rand.Int64N(int64(150 * time.Millisecond))))
			}
			end()
			v.start().quiet()
			v.checkChanges(before)
		})
	}
}

func (v *vol) killOne(after time.Duration) {
	v.t.Helper()
	params, err := json.Marshal(markerParams{Root: v.o.Root, Dir: v.o.Dir, UUID: v.o.UUID, Namespace: v.o.Namespace,
		VolumeMark: v.o.VolumeMark, Source: v.o.Source})
	if err != nil {
		v.t.Fatal(err)
	}
	cmd, _ := startSelf(v.t, "marker", "/", string(params))
	v.until("the marker lives", func() bool { return Alive(v.o.Dir) })
	time.Sleep(after)
	if err := cmd.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	_ = cmd.Wait()
}

// TestOverflow lets the kernel's queue overflow.
func TestOverflow(t *testing.T) {
	for _, source := range []string{SourceFanotify, SourceInotify} {
		t.Run(source, func(t *testing.T) { testOverflow(t, source) })
	}
}

func testOverflow(t *testing.T, source string) {
	dir := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	v := newVol(t, dir)
	v.o.Source = source
	v.sh("mkdir -p a/b; touch a/b/old")
	v.start().quiet()
	limit, err := os.ReadFile("/proc/sys/fs/" + source + "/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	max := 0
	fmt.Sscan(string(limit), &max)
	// While this holds the lock, nothing is marked, and so nothing more is read after one batch.
	v.m.core.mu.Lock()
	v.sh(fmt.Sprintf("cd a/b; seq 1 %d | xargs touch; echo x > old; mkdir -p last/of/all; touch last/of/all/f", max+2*maxBatch))
	v.m.core.mu.Unlock()
	v.quiet()
	if losses, _ := v.m.beats.losses(); losses == 0 {
		t.Fatal("nothing overflowed: the test tests nothing")
	}
	if v.m.counts.overflows.Load() == 0 {
		t.Error("the status says nothing of it")
	}
	for path, x := range v.all() {
		if x == 0 {
			t.Fatalf("%q was never marked", path)
		}
	}
	if v.xtime("a/b/last/of/all/f") > v.xtime("") {
		t.Error("the root is older than what lies below it")
	}
	losses, _ := v.m.beats.losses()
	before := v.all()
	v.sh("rm a/b/last/of/all/f; echo y > a/b/last/of/g")
	v.quiet()
	v.checkMarked(before, "", "a", "a/b", "a/b/last", "a/b/last/of", "a/b/last/of/all", "a/b/last/of/g")
	if again, _ := v.m.beats.losses(); again != losses {
		t.Error("a scan was needed for what came after the overflow")
	}
}

// contextOfStdin ends when standard input does.
func contextOfStdin() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return ctx
}
