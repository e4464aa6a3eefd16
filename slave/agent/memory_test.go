package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

// Each end in a process of its own, which keeps to the memory limit that georep's processes have, while the other end sends and
// says the most that the protocol allows, of everything, on all streams at once.

const (
	hoardChild  = "GEOREP_TEST_HOARD"
	promised    = 96 << 20
	memoryLimit = 72 << 20 // as cmd/georep sets it
)

func TestAgentStaysSmall(t *testing.T)  { staysSmall(t, victimAgent, hostileMaster) }
func TestMasterStaysSmall(t *testing.T) { staysSmall(t, victimMaster, hostileSlave) }

type end = io.ReadWriteCloser

// staysSmall has the victim at one end of all streams of a session, in a process of its own, and the attack at the other. The
// victim is told to go on when its standard input ends.
func staysSmall(t *testing.T, victim func(*testing.T, []end), attack func(t *testing.T, ends []end, goOn func())) {
	if os.Getenv(hoardChild) == t.Name() {
		debug.SetMemoryLimit(memoryLimit)
		peak := watchHeap()
		victim(t, inherited(t))
		fmt.Printf("heap %d resident %d\n", peak(), resident(t))
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), hoardChild+"="+t.Name())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var ours []end
	for range MaxStreams {
		near, far := osPipe(t)
		ours = append(ours, near)
		cmd.ExtraFiles = append(cmd.ExtraFiles, far.(*pair).in, far.(*pair).out)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	attack(t, ours, func() { stdin.Close() })
	for _, rw := range ours {
		rw.Close()
	}
	stdin.Close()
	err = cmd.Wait()
	sizes := regexp.MustCompile(`heap (\d+) resident (\d+)`).FindSubmatch(out.Bytes())
	if err != nil || sizes == nil {
		t.Fatalf("%v: %s", err, &out)
	}
	heap, _ := strconv.ParseInt(string(sizes[1]), 10, 64)
	rss, _ := strconv.ParseInt(string(sizes[2]), 10, 64)
	t.Logf("the Go runtime had %d MiB at the most, the process %d", heap>>20, rss>>20)
	if heap > promised {
		t.Errorf("the Go runtime had %d MiB", heap>>20)
	}
	if rss > promised && !raceBuild() { // which needs some memory for each byte that it watches
		t.Errorf("the process had %d MiB", rss>>20)
	}
}

// inherited are the streams that this process was given.
func inherited(t *testing.T) (all []end) {
	for n := range MaxStreams {
		var files [2]*os.File
		for k := range files {
			fd := 3 + 2*n + k
			if err := unix.SetNonblock(fd, true); err != nil {
				t.Fatal(err)
			}
			files[k] = os.NewFile(uintptr(fd), "stream")
		}
		all = append(all, &pair{in: files[0], out: files[1]})
	}
	return all
}

func raceBuild() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}

// watchHeap looks every millisecond how much memory the Go runtime has in use, garbage included.
func watchHeap() (peak func() uint64) {
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(s)
			most.Store(max(most.Load(), s[0].Value.Uint64()-s[1].Value.Uint64()))
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	}()
	return func() uint64 { close(stop); <-done; return most.Load() }
}

// resident is the most that the process has had in memory.
func resident(t *testing.T) int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// fullTree gives the most that a tree may give, made anew each time, as one does that reads a disk.
type fullTree struct {
	*fakeTree
	gate chan struct{} // nothing is applied, written or hashed before it is closed
}

func (f *fullTree) Survey(context.Context, []slave.Query) ([]slave.DirState, error) {
	return []slave.DirState{fullState()}, nil
}

func fullState() (s slave.DirState) {
	for weight := int64(slave.ItemCost); weight < slave.MaxSurvey-8<<10; {
		e := slave.EntryState{Name: fmt.Sprintf("%0255d", weight), Kind: slave.Symlink, Target: strings.Repeat("t", maxTarget)}
		s.Entries, weight = append(s.Entries, e), weight+e.Weight()
	}
	return s
}

func (f *fullTree) Find(_ context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	return fullFound(), nil
}

func fullFound() (all []slave.Found) {
	for range slave.MaxFound / (slave.MaxFoundPath + slave.ItemCost) {
		all = append(all, slave.Found{Linked: true, Path: strings.Repeat("p", slave.MaxFoundPath)})
	}
	return all
}

func (f *fullTree) Groups(context.Context, int) ([]slave.Group, error) { return fullGroups(), nil }

func fullGroups() (all []slave.Group) {
	for range slave.MaxGroups/slave.MaxFoundPath - 2 {
		g := slave.Group{MissingNames: true}
		for range slave.MaxGroupNames {
			g.Names = append(g.Names, strings.Repeat("p", slave.MaxFoundPath/slave.MaxGroupNames))
		}
		all = append(all, g)
	}
	return all
}

func fullRanges() (have []slave.Range) {
	for i := range int64(slave.MaxRanges) {
		have = append(have, slave.Range{Off: 2 * i, End: 2*i + 1})
	}
	return have
}

func (f *fullTree) Begin(context.Context, *slave.Upload) (slave.UploadState, error) {
	return slave.UploadState{Have: fullRanges()}, nil
}

func fullError() error {
	return &slave.PathError{Op: strings.Repeat("o", maxErrOp), Path: strings.Repeat("p", maxErrPath), Err: fmt.Errorf("%w: %s",
		slave.ErrConflict, strings.Repeat("e", maxText))}
}

func (f *fullTree) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	f.wait(ctx)
	all := make([]slave.HashResult, len(paths))
	for i := range all {
		all[i].Err = &slave.PathError{Op: "hash", Path: paths[i], Err: slave.ErrConflict}
	}
	return all, nil
}

func (f *fullTree) Write(ctx context.Context, _ *slave.Segment) (slave.Result, error) {
	f.wait(ctx)
	return slave.Result{Err: fullError()}, nil
}

func (f *fullTree) Stage(b *slave.Batch) (func(context.Context) ([]slave.Result, error), error) {
	return func(ctx context.Context) ([]slave.Result, error) {
		f.wait(ctx)
		results := make([]slave.Result, len(b.Ops))
		for i := range results {
			results[i].Err = &slave.PathError{Op: "meta", Path: b.Ops[i].Path, Err: slave.ErrConflict}
		}
		return results, nil
	}, nil
}

func (f *fullTree) wait(ctx context.Context) {
	select {
	case <-f.gate:
	case <-ctx.Done():
	}
}

// largestRequests are frames without an id, and each as large as it may be, or with as much in it.
func largestRequests() (all []tooMuch) {
	bounds := requestsAtTheirBounds()
	for _, name := range []string{"batch, all", "batch, xattrs", "batch, operations", "survey, questions", "survey, names", "find", "hash, all",
		"hash", "groups", "begin", "write, parts", "write, data"} {
		all = append(all, bounds[name])
	}
	return all
}

// victimAgent serves the streams, with a tree that does nothing before it is told to go on.
func victimAgent(t *testing.T, ends []end) {
	tree := &fullTree{newFake(), make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(tree.gate)
	}()
	host := &Host{Version: "v", Open: func(Hello) (slave.Reader, error) { return tree, nil }, Join: func(Hello) error { return nil }}
	var wg sync.WaitGroup
	for _, rw := range ends {
		wg.Go(func() {
			if err := host.Serve(context.Background(), rw); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
}

// hostileMaster sends the largest of all requests over all streams, and reads nothing until no more is taken; then it goes on.
func hostileMaster(t *testing.T, ends []end, goOn func()) {
	var wg sync.WaitGroup
	var sent atomic.Int64
	read := make(chan struct{})
	hello := testHello()
	requests := largestRequests()
	for number, rw := range ends {
		hello.Stream = uint32(number)
		r := greetAs(t, rw, &hello)
		wg.Go(func() {
			for i := range requests {
				c := requests[(i+number)%len(requests)]
				b := appendFrame(nil, head{kind: c.kind, id: uint64(i + 1)}, func(b []byte) []byte { return append(b, c.most...) })
				if _, err := rw.Write(b); err != nil {
					t.Error(err)
					return
				}
				sent.Add(1)
			}
		})
		wg.Go(func() {
			<-read
			for answered := 0; answered < len(requests); {
				frame, err := r.next()
				if err != nil {
					t.Error(err)
					return
				}
				if frame.kind >= frameStates && !frame.more {
					answered++
				}
			}
		})
	}
	untilStill(&sent)
	goOn()
	untilStill(&sent)
	close(read)
	wg.Wait()
}

// greetAs begins a session, or joins it, and leaves what lets others join in hello.
func greetAs(t *testing.T, rw io.ReadWriteCloser, hello *Hello) *receiver {
	r := newReceiver(rw)
	if err := findMagic(r.r); err != nil {
		t.Fatal(err)
	}
	if _, err := readPreface(r.r); err != nil {
		t.Fatal(err)
	}
	rw.Write(appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
		func(b []byte) []byte { return appendHello(b, hello) }))
	frame, err := r.next()
	if err != nil || frame.kind != frameWelcome {
		t.Fatal(frame.kind, err)
	}
	d := decoder{b: frame.body}
	if w := d.welcome(); hello.Stream == 0 {
		hello.Token = w.token
	}
	return r
}

// untilStill waits until nothing is counted any more.
func untilStill(n *atomic.Int64) {
	for before := int64(-1); before != n.Load(); time.Sleep(300 * time.Millisecond) {
		before = n.Load()
	}
}
