package sftp

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// liar is a stream to a server that lists what it likes. What it says is made as it is asked for.
type liar struct {
	*odd
	asked atomic.Int64 // answers about directories
	pages int64
	about string // the paths that it lies about
	rest  []byte

	mu    sync.Mutex // one lie at a time, so that they take no memory
	first []byte
	size  int // of each name in it
}

func newLiar(inner io.ReadWriteCloser, first []byte, pages int64) *liar {
	return &liar{odd: newOdd(inner, false, func(byte) (bool, bool) { return false, false }), first: bytes.Clone(first), pages: pages,
		size: (len(first) - 4) / max(1, int(binary.BigEndian.Uint32(first)))}
}

// lie answers with a page, in which the names of each are others.
func (l *liar) lie(k int64, head []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.first[4:]
	for i := int64(0); len(rest) > 0; i++ {
		copy(rest[4:], fmt.Sprintf("%010d%010d", k, i))
		rest = rest[l.size:]
	}
	l.answer(append(head, l.first...))
}

// Write answers what is asked about directories by itself.
func (l *liar) Write(p []byte) (int, error) {
	const typeClose, typeReaddir, typeHandle, typeName = 4, 12, 102, 104
	l.rest = append(l.rest, p...)
	for len(l.rest) >= 4 {
		n := 4 + int(binary.BigEndian.Uint32(l.rest))
		if len(l.rest) < n {
			break
		}
		packet := bytes.Clone(l.rest[:n])
		l.rest = l.rest[n:]
		about, head := packet[9:], func(kind byte) []byte { return append([]byte{kind}, packet[5:9]...) }
		of := bytes.HasPrefix(about, []byte("\x00\x00\x00\x03lie"))
		switch {
		case packet[4] == typeOpendir && bytes.Contains(about, []byte(l.about)):
			go l.odd.answer(append(head(typeHandle), 0, 0, 0, 3, 'l', 'i', 'e'))
			continue
		case packet[4] == typeReaddir && of:
			if k := l.asked.Add(1); k <= l.pages {
				go l.lie(k, head(typeName))
			} else {
				go l.odd.answer(append(head(typeStatus), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0))
			}
			continue
		case packet[4] == typeClose && of:
			go l.odd.answer(append(head(typeStatus), make([]byte, 12)...))
			continue
		}
		if _, err := l.odd.Write(packet); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// fullPage is an answer as large as a packet may be, of names with 255 bytes and no more than one attribute, or with as many attributes as
// there is room for.
func fullPage(more int) []byte { return fullPageOf(unix.S_IFREG, more) }

func fullPageOf(kind uint32, more int) []byte {
	var names []byte
	n := uint32(0)
	long := strings.Repeat("n", 255-20)
	text := func(s string) { names = append(binary.BigEndian.AppendUint32(names, uint32(len(s))), s...) }
	for len(names)+600+more < 255<<10 {
		text(strings.Repeat("0", 20) + long)
		text("")
		names = binary.BigEndian.AppendUint32(names, 1<<31|4|1|8) // extensions, mode, size, times
		names = binary.BigEndian.AppendUint64(names, 1)
		names = binary.BigEndian.AppendUint32(names, kind|0o644)
		names = append(names, make([]byte, 8)...)
		names = binary.BigEndian.AppendUint32(names, 1)
		text(strings.Repeat("e", more))
		text("")
		n++
	}
	return append(binary.BigEndian.AppendUint32(nil, n), names...)
}

const (
	liarChild = "GEOREP_TEST_LIAR"
	promised  = 96 << 20
	lies      = "lies" // begins the names of directories that are lied about
)

// TestLiarsLeaveItSmall: whatever a server lists, of a million entries in many directories at the same time, the process keeps to its
// memory. It is one of its own, with the limit that georep's processes have.
func TestLiarsLeaveItSmall(t *testing.T) {
	for name, c := range map[string]struct {
		about string
		pages int64
		more  int
		kind  uint32
	}{
		"names":      {about: "/" + lies, pages: 1_000_000 / 900},
		"attributes": {about: "/" + lies, pages: 600, more: 200 << 10},
		"park":       {about: "/.georep/parked", pages: 1_000_000 / 900},
		// They are gone into once all are known.
		"directories": {about: "/" + lies, pages: 1_000_000 / 900, kind: unix.S_IFDIR},
		"trash":       {about: "/.georep/trash", pages: 200_000 / 900, kind: unix.S_IFDIR},
	} {
		t.Run(name, func(t *testing.T) {
			if root := os.Getenv(liarChild); root != "" {
				debug.SetMemoryLimit(72 << 20)
				readLies(t, root, c.kind == unix.S_IFDIR)
				fmt.Printf("resident %d\n", peakResident(t))
				return
			}
			inner, err := library(t)
			if err != nil {
				t.Fatal(err)
			}
			root := memory(t)
			tree, err := open(t.Context(), options(t, root, library, 1), quickLease) // from now on it is a slave
			if err == nil {
				err = tree.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			l := newLiar(inner, fullPageOf(cmp.Or(c.kind, unix.S_IFREG), c.more), c.pages)
			l.about = c.about
			out := runAgainst(t, l, root)
			size := regexp.MustCompile(`resident (\d+)`).FindSubmatch(out)
			if size == nil {
				t.Fatalf("%s", out)
			}
			rss, _ := strconv.ParseInt(string(size[1]), 10, 64)
			t.Logf("the process had %d MiB at the most, after %d lies", rss>>20, l.asked.Load())
			if rss > promised && !raceDetector() { // which needs some memory for each byte that it watches
				t.Errorf("the process had %d MiB", rss>>20)
			}
			if l.asked.Load() < 64 {
				t.Errorf("only %d answers were lies", l.asked.Load())
			}
		})
	}
}

// TestListsThatNeverEnd: a list without an end is refused, with the reason, and answers without a name end one.
func TestListsThatNeverEnd(t *testing.T) {
	for name, c := range map[string]struct {
		page []byte
		want error
	}{"names": {fullPage(0), unix.E2BIG}, "nothing": {page: make([]byte, 4)}} {
		t.Run(name, func(t *testing.T) {
			root := memory(t)
			tree, err := open(t.Context(), options(t, root, func(t testing.TB) (io.ReadWriteCloser, error) {
				inner, err := library(t)
				if err != nil {
					return nil, err
				}
				l := newLiar(inner, c.page, 1<<60)
				l.about = "/" + lies
				return l, nil
			}, 1), quickLease)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			tree.most = 10_000
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
			f.Must(slavetest.Mkdir(lies, slavetest.Rec(1, 0)))
			states, err := tree.Survey(t.Context(), []slave.Query{{Path: lies}})
			if err != nil || !errors.Is(states[0].Err, c.want) {
				t.Errorf("%v, %v, want %v", states[0].Err, err, c.want)
			}
			if c.want != nil && !strings.Contains(states[0].Err.Error(), "10000 entries") {
				t.Errorf("%v: it does not say why", states[0].Err)
			}
		})
	}
}

// runAgainst runs the same test in a process of its own, which has the stream for its slave.
func runAgainst(t *testing.T, l io.ReadWriteCloser, root string) []byte {
	t.Helper()
	defer l.Close()
	in, toUs, err1 := os.Pipe()
	fromUs, out, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.timeout=60s", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), liarChild+"="+root)
	cmd.ExtraFiles = []*os.File{fromUs, toUs}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	fromUs.Close()
	toUs.Close()
	go func() { _, _ = io.Copy(l, in) }()
	go func() { _, _ = io.Copy(out, l) }()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
	in.Close()
	out.Close()
	return said.Bytes()
}

// inherited is the stream to a slave that this process was given.
type inherited struct{ in, out *os.File }

func (s inherited) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s inherited) Write(p []byte) (int, error) { return s.out.Write(p) }
func (s inherited) Close() error                { return errors.Join(s.in.Close(), s.out.Close()) }

// readLies has 64 directories listed at the same time, as a crawl does, or one gone through with all that is in it, and the trash.
func readLies(t *testing.T, root string, deep bool) {
	stream := func(testing.TB) (io.ReadWriteCloser, error) {
		err := errors.Join(unix.SetNonblock(3, true), unix.SetNonblock(4, true)) // so that a read ends when it is closed
		return inherited{os.NewFile(3, "in"), os.NewFile(4, "out")}, err
	}
	tree, err := open(t.Context(), options(t, root, stream, 1), quickLease)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	queries := make([]slave.Query, 64)
	for i := range queries {
		queries[i].Path = fmt.Sprint(lies, i)
		f.Must(slavetest.Mkdir(queries[i].Path, slavetest.Rec(i+1, 0)))
	}
	if deep {
		_ = tree.cleaner.emptyTrash(t.Context()) // which the server makes impossible
		if _, err := tree.Count(t.Context(), []string{queries[0].Path}, 1<<40); err != nil {
			t.Fatal(err)
		}
		return
	}
	states, err := tree.Survey(t.Context(), queries)
	if err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(states)
}

func peakResident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	size := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if err != nil || size == nil {
		t.Fatal(err)
	}
	n, _ := strconv.ParseInt(string(size[1]), 10, 64)
	return n << 10
}

func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	for _, s := range info.Settings {
		if s.Key == "-race" && s.Value == "true" {
			return true
		}
	}
	return false
}
