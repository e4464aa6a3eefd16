package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// seam is a hook that records every change and lets some fail.
type seam struct {
	mu    sync.Mutex
	on    bool
	calls []string // "op name"
	fail  func(n int, op, name string) error
}

func (s *seam) hook(op, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.on {
		return nil
	}
	s.calls = append(s.calls, op+" "+name)
	if s.fail == nil {
		return nil
	}
	return s.fail(len(s.calls)-1, op, name)
}

// arm starts recording, with these failures.
func (s *seam) arm(fail func(n int, op, name string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on, s.calls, s.fail = true, nil, fail
}

// disarm ends it and returns what was recorded.
func (s *seam) disarm() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = false
	return s.calls
}

// newSeamed opens a slave with a seam on a new root on tmpfs, where a sync costs nothing.
func newSeamed(t *testing.T) (*slavetest.Fixture, *seam) {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "georep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	return seamed(t, root)
}

func seamed(t *testing.T, root string) (*slavetest.Fixture, *seam) {
	t.Helper()
	s := &seam{}
	tree, err := open(testOptions(t, root), s.hook)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return &slavetest.Fixture{T: t, Tree: tree, Root: root}, s
}

// before brings the slave to the state that the scenario starts from.
func before(f *slavetest.Fixture) {
	f.Must(slavetest.Mkdir("d", slavetest.Rec(10, 0)), slavetest.Mkdir("e", slavetest.Rec(11, 0)),
		slavetest.Put("d/a", slavetest.Rec(1, 1), "a1"), slavetest.Put("d/o", slavetest.Rec(3, 1), "o1"),
		slavetest.Linked(slavetest.Put("d/l1", slavetest.Rec(2, 1), "l1"), 2),
		slavetest.Link("e/l2", "d/l1", slavetest.Rec(2, 1), 2),
		slavetest.Put("e/p", slavetest.Rec(6, 1), "p"), slavetest.Put("e/m", slavetest.Rec(7, 1), "m"))
	f.Must(slavetest.Finish("d", slavetest.Rec(10, 1), 1), slavetest.Finish("e", slavetest.Rec(11, 1), 1),
		slavetest.Finish("", slavetest.Rec(12, 1), 1))
}

// scenario is what a crawl would send: it stops where something failed, since stamps are not sent then.
func scenario(pass uint32) [][]slave.Op {
	meta := slave.Op{
		Kind: slave.OpMeta, Entry: slave.File, Path: "e/m", Record: slavetest.Rec(7, 2), Expect: slavetest.GFID(7),
		Meta: slavetest.MetaOf(0o600),
	}
	link := slave.Op{
		Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "d/s", Record: slavetest.Rec(8, 2), Meta: slavetest.MetaOf(0o777),
	}
	link.Meta.Target = "t"
	return [][]slave.Op{{
		slavetest.Mkdir("d", slavetest.Rec(10, 0)), slavetest.Put("d/a", slavetest.Rec(1, 2), "a2"),
		slavetest.Linked(slavetest.Put("d/l1", slavetest.Rec(2, 2), "l2"), 2),
		slavetest.Linked(slavetest.Put("d/n", slavetest.Rec(5, 2), "n"), 2), link,
		slavetest.Put("d/o", slavetest.Rec(4, 2), "o2"), slavetest.Mkdir("d/sub", slavetest.Rec(13, 0)),
		slavetest.Put("d/sub/x", slavetest.Rec(9, 2), "x"), slavetest.Park("e/p", slavetest.GFID(6)),
		slavetest.Link("e/q", "d/n", slavetest.Rec(5, 2), 2),
	}, {
		slavetest.Unpark("d/p", slavetest.Rec(6, 1)), meta,
	}, {
		slavetest.Finish("d/sub", slavetest.Rec(13, 2), pass), slavetest.Finish("d", slavetest.Rec(10, 2), pass),
		slavetest.Finish("e", slavetest.Rec(11, 2), pass), slavetest.Finish("", slavetest.Rec(12, 2), pass),
	}}
}

// batches is the length of the scenario; the last has the stamps.
const batches = 3

// play applies the scenario and tells how many of its batches succeeded as a whole, one after the other.
func play(f *slavetest.Fixture, pass uint32) int {
	f.Helper()
	for n, batch := range scenario(pass) {
		whole := true
		for _, r := range f.Apply(batch...) {
			whole = whole && r.Err == nil
		}
		if !whole {
			return n
		}
	}
	return batches
}

// after checks the tree that the scenario leads to.
func after(f *slavetest.Fixture) {
	f.Helper()
	want := map[string]string{
		"d/a": "a2", "d/l1": "l2", "e/l2": "l2", "d/n": "n", "e/q": "n", "d/o": "o2", "d/sub/x": "x", "d/p": "p", "e/m": "m",
	}
	for path, text := range want {
		f.Content(path, text)
	}
	f.Gone("e/p")
	f.SameInode("d/l1", "e/l2")
	f.SameInode("d/n", "e/q")
	if f.Stat("d/l1").Nlink != 2 || f.Stat("d/n").Nlink != 2 || f.Stat("e/m").Mode&0o7777 != 0o600 {
		f.Fatal("links or mode")
	}
	for path, rec := range map[string]slave.Record{
		"d/sub": slavetest.Rec(13, 2), "d": slavetest.Rec(10, 2), "e": slavetest.Rec(11, 2), "": slavetest.Rec(12, 2),
		"d/a": slavetest.Rec(1, 2), "e/l2": slavetest.Rec(2, 2), "e/m": slavetest.Rec(7, 2),
	} {
		if got := f.Record(path); got != rec {
			f.Fatalf("record of %q: %v, want %v", path, got, rec)
		}
	}
	f.StagingEmpty()
	if got, err := f.Tree.Groups(f.Context(), 5); err != nil || len(got) != 0 {
		f.Fatalf("groups %v, %v", got, err)
	}
	if got, err := os.ReadFile(f.Path(".georep/parked/" + slavetest.GFID(3).String())); err != nil || string(got) != "o1" {
		f.Fatalf("what was replaced by another inode is not parked: %q, %v", got, err)
	}
}

// sane checks what must hold at any moment: no file is half written, no stamp is ahead of what lies below.
func sane(f *slavetest.Fixture, finished bool) {
	f.Helper()
	for path, texts := range map[string][]string{
		"d/a": {"a1", "a2"}, "d/o": {"o1", "o2"}, "d/l1": {"l1", "l2"}, "e/l2": {"l1", "l2"}, "e/m": {"m"},
	} {
		got, err := os.ReadFile(f.Path(path))
		if err != nil || string(got) != texts[0] && string(got) != texts[len(texts)-1] {
			f.Fatalf("%s holds %q, %v", path, got, err)
		}
		// A record that vouches for more than there is would never be mended.
		if f.Record(path).Xtime == slavetest.Rec(0, 2).Xtime && string(got) != texts[len(texts)-1] {
			f.Fatalf("%s is on record as new with %q", path, got)
		}
	}
	stamped := func(path string) bool { return f.Record(path).Xtime >= slavetest.Rec(0, 2).Xtime }
	if finished {
		if stamped("") && !(stamped("d") && stamped("e")) || stamped("d") && !stamped("d/sub") {
			f.Fatal("a directory is stamped, and one below it is not")
		}
		return
	}
	for _, path := range []string{"", "d", "e"} {
		if stamped(path) {
			f.Fatalf("%q is stamped although its content failed", path)
		}
	}
}

func TestFailTheNth(t *testing.T) {
	for _, errno := range []error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EACCES, unix.EROFS, unix.EMFILE} {
		for _, forever := range []bool{false, true} {
			t.Run(fmt.Sprint(errno, forever), func(t *testing.T) { failTheNth(t, errno, forever) })
		}
	}
}

// failTheNth fails the n-th change of the scenario, and all after it if forever, for every n until the scenario ends
// before the n-th.
func failTheNth(t *testing.T, errno error, forever bool) {
	for n := 0; ; n++ {
		f, s := newSeamed(t)
		before(f)
		s.arm(func(i int, _, _ string) error {
			if i == n || forever && i > n {
				return errno
			}
			return nil
		})
		finished := play(f, 2) >= batches-1
		calls := s.disarm()
		sane(f, finished)
		if forever {
			// As after a crash: nothing could be tidied up.
			f.Tree.Close()
			f, _ = seamed(t, f.Root)
			sane(f, finished)
		}
		// After a failed sync the pass that follows may be held back as well.
		if play(f, 3) < batches && play(f, 4) < batches {
			t.Fatalf("call %d (%s) failed; the replays fail too", n, calls[min(n, len(calls)-1)])
		}
		if forever && len(groupsOf(f)) > 0 && play(f, 5) < batches { // what the session before left is told of, then settled
			t.Fatalf("call %d (%s) failed; so does what settles it", n, calls[min(n, len(calls)-1)])
		}
		after(f)
		f.Tree.Close()
		os.RemoveAll(f.Root)
		if n >= len(calls) {
			if n < 50 {
				t.Fatalf("the scenario makes only %d changes", n)
			}
			return
		}
	}
}

// TestDurabilityOrder sees that nothing staged gets its name before the sync that follows its staging, and that no
// stamp is written before the sync that follows what was published (invariant 5).
func TestDurabilityOrder(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	s.arm(nil)
	if play(f, 2) < batches {
		t.Fatal("the scenario failed")
	}
	f.Must(slavetest.Put("d/few", slavetest.Rec(20, 2), "by itself"))
	f.Must(slavetest.Put("d/few", slavetest.Rec(20, 3), "over"), slavetest.Finish("d", slavetest.Rec(10, 3), 3))
	o := &order{T: t, stamp: "setxattr " + f.Tree.(*Tree).names.Xtime, prefix: f.Tree.(*Tree).prefix, loose: map[string]bool{}}
	for _, call := range s.disarm() {
		i := strings.LastIndex(call, " ")
		if op, rest, _ := strings.Cut(call, " "); op == "rename" {
			o.renamed(rest)
			continue
		}
		o.called(call[:i], call[i+1:])
	}
	if o.stamps != 6 || o.names < 12 || o.syncs < 5 {
		t.Fatalf("only %d stamps, %d names and %d syncs were seen", o.stamps, o.names, o.syncs)
	}
}

// order checks the calls of a session, one after the other.
type order struct {
	*testing.T
	stamp, prefix        string
	loose                map[string]bool // staged and not synced
	published            bool            // something, since the last sync
	stamps, names, syncs int
}

func (o *order) renamed(call string) {
	from, to, _ := strings.Cut(call, " to ")
	books := strings.HasPrefix(to, "ee000000-") // or the park; nobody relies on the books
	if o.loose[from] && !books {
		o.Errorf("%s is renamed to %s before it was synced", from, to)
	}
	delete(o.loose, from)
	if !books {
		o.names, o.published = o.names+1, true
	}
}

func (o *order) called(op, name string) {
	switch {
	case op == "syncfs":
		clear(o.loose)
		o.published, o.syncs = false, o.syncs+1
	case op == "fsync":
		delete(o.loose, name)
		o.syncs++
	case strings.HasPrefix(name, o.prefix):
		if op != "unlink" && op != "link" {
			o.loose[name] = true
		}
	case op == o.stamp && name == "":
		o.stamps++
		if o.published {
			o.Error("a stamp before the sync of what was published")
		}
	case op == "mkdir" || op == "chmod" || op == "utimens" || op == "link" || op == o.stamp:
		o.published = true
	}
}

// TestParkedBeforeDeleted sees that applying removes nothing but staged names, and that Clean moves what it deletes out
// of the park first (invariant 15).
func TestParkedBeforeDeleted(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	prefix := f.Tree.(*Tree).prefix
	s.arm(func(_ int, op, name string) error {
		if (op == "unlink" || op == "rmdir") && !strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, "ee000000-") {
			t.Errorf("%s %s", op, name)
		}
		return nil
	})
	f.Must(slavetest.Park("d/a", slavetest.GFID(1)), slavetest.Park("e", slavetest.GFID(11)))
	s.disarm()
	if _, err := os.Stat(f.Path(".georep/parked/" + slavetest.GFID(11).String() + "/m")); err != nil {
		t.Fatal(err)
	}
	s.arm(func(_ int, op, _ string) error {
		if op == "rename" {
			return unix.EIO
		}
		return nil
	})
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, call := range s.disarm() {
		if op, _, _ := strings.Cut(call, " "); op != "rename" {
			t.Errorf("%s although nothing left the park", call)
		}
	}
	if f.Tree.Clean(f.Context(), 0) != nil {
		t.Fatal("clean")
	}
	if left, err := os.ReadDir(f.Path(".georep/parked")); err != nil || len(left) != 0 {
		t.Fatalf("parked: %v, %v", left, err)
	}
}

// TestFailedSync sees that no stamp follows a failed sync in its pass, and that the next pass goes on.
func TestFailedSync(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	s.arm(func(_ int, op, _ string) error {
		if op == "syncfs" {
			return unix.EIO
		}
		return nil
	})
	res := f.Apply(slavetest.Finish("d", slavetest.Rec(10, 5), 5))
	if !errors.Is(res[0].Err, unix.EIO) {
		t.Fatalf("got %v, want EIO", res[0].Err)
	}
	s.disarm()
	f.Fails(slavetest.Finish("e", slavetest.Rec(11, 5), 5), slave.ErrHeldBack)
	if got := f.Record("d"); got != slavetest.Rec(10, 1) {
		t.Fatalf("record %v", got)
	}
	f.Must(slavetest.Finish("d", slavetest.Rec(10, 6), 6), slavetest.Finish("e", slavetest.Rec(11, 6), 6))
}

// TestFailedStamp sees that a stamp that cannot be written holds back those above it in the same batch.
func TestFailedStamp(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	done := false
	s.arm(func(_ int, op, name string) error {
		if strings.HasSuffix(op, ".xtime") && name == "" && !done {
			done = true
			return unix.EIO
		}
		return nil
	})
	res := f.Apply(slavetest.Finish("d", slavetest.Rec(10, 5), 5), slavetest.Finish("e", slavetest.Rec(11, 5), 5),
		slavetest.Finish("", slavetest.Rec(12, 5), 5))
	if !errors.Is(res[0].Err, unix.EIO) || res[1].Err != nil || !errors.Is(res[2].Err, slave.ErrHeldBack) {
		t.Fatalf("%v, %v, %v", res[0].Err, res[1].Err, res[2].Err)
	}
}

// TestStampsWaitForAWholeSync commits a single file while a stamp waits: its own fsync must not do for the stamp.
func TestStampsWaitForAWholeSync(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	put := stage(t, f, slavetest.Put("e/x", slavetest.Rec(30, 1), "x"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	var once sync.Once
	s.arm(func(_ int, op, name string) error {
		if op == "utimens" && name == "" {
			// The directory is being finished: now the next batch is queued behind it.
			once.Do(func() { _, _ = put(cancelled) })
		}
		return nil
	})
	if r := f.Apply(slavetest.Finish("d", slavetest.Rec(10, 5), 5)); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	f.Apply(slavetest.Put("e/x/y", slavetest.Rec(31, 1), "waits for the put"))
	f.Content("e/x", "x")
	synced := false
	for _, call := range s.disarm() {
		synced = synced || strings.HasPrefix(call, "syncfs")
		if strings.HasPrefix(call, "setxattr") && strings.HasSuffix(call, ".xtime ") && !synced {
			t.Fatal("a stamp before a sync of all")
		}
	}
	if !synced {
		t.Fatal("no sync of all")
	}
}

// TestStampOfAnotherDirectory replaces a directory between its finish and its stamp.
func TestStampOfAnotherDirectory(t *testing.T) {
	f, s := newSeamed(t)
	before(f)
	s.arm(func(_ int, op, _ string) error {
		if op != "syncfs" {
			return nil
		}
		return errors.Join(os.Rename(f.Path("d"), f.Path("gone")), os.Mkdir(f.Path("d"), 0o755))
	})
	f.Fails(slavetest.Finish("d", slavetest.Rec(10, 5), 5), slave.ErrConflict)
	s.disarm()
	if got := f.Record("d"); got != (slave.Record{}) {
		t.Fatalf("record %v", got)
	}
}
