package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/leak"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/disk"
)

// line is a connection of which one direction ends for good, and with it all, once it has carried so many bytes. What it
// carries comes in pieces.
type line struct {
	net.Conn
	mu          sync.Mutex
	left        int64 // bytes until the cut; negative: never cut
	down        bool  // it is what the slave says that is counted
	piece       int
	passed, cut int64 // bytes of the counted direction; 1 once it is cut
}

var errLineCut = errors.New("the line is cut")

func (l *line) Read(p []byte) (int, error) {
	p = p[:min(len(p), l.piece)]
	if !l.down {
		return l.Conn.Read(p)
	}
	room, err := l.room(len(p))
	if err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(p[:room])
	l.count(n)
	return n, err
}

func (l *line) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		part := p[n:min(len(p), n+l.piece)]
		if !l.down {
			var room int
			if room, err = l.room(len(part)); err != nil {
				break
			}
			part = part[:room]
		}
		var k int
		k, err = l.Conn.Write(part)
		n += k
		if !l.down {
			l.count(k)
		}
	}
	return n, err
}

// room is how many of n bytes may pass.
func (l *line) room(n int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == 0 {
		l.cut = 1
		return 0, errors.Join(errLineCut, l.Conn.Close())
	}
	if l.left > 0 {
		n = int(min(int64(n), l.left))
	}
	return n, nil
}

func (l *line) count(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.passed += int64(n)
	if l.left > 0 {
		l.left -= int64(n)
	}
}

// linked is a world whose slave is behind both ends of the protocol.
type linked struct{ *world }

// newLinked lies in memory, where a sync costs nothing.
func newLinked(t *testing.T) *linked {
	leak.Check(t)
	dir, err := os.MkdirTemp("/dev/shm", "georep")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	master, there := filepath.Join(dir, "master"), filepath.Join(dir, "slave")
	if err := errors.Join(os.Mkdir(master, 0o755), os.Mkdir(there, 0o755)); err != nil {
		t.Fatal(err)
	}
	return &linked{world: newMaster(t, master, there)}
}

// session runs one session over l, for one crawl, and waits until the agent has ended too.
func (w *linked) session(l *line) error {
	w.t.Helper()
	here, there := net.Pipe()
	l.Conn = here
	served := make(chan error, 1)
	go func() {
		served <- agent.Serve(context.Background(), there, "test", func(h agent.Hello) (slave.Reader, error) {
			return disk.Open(disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Force: true, Version: "test"})
		})
	}()
	defer func() { <-served }()
	c, err := agent.Dial(w.t.Context(), l, agent.Hello{Version: "test", Master: w.uuid, Session: w.world.session, Path: w.slave})
	if err != nil {
		return err
	}
	defer c.Close()
	w.over(c)
	out, err := w.crawler.Pass(w.t.Context())
	if err == nil && out.Stime == 0 {
		list, _ := w.crawler.Failures(10)
		err = fmt.Errorf("not stamped: %v", list)
	}
	return err
}

// small are changes of every kind that are cheap to send.
func (w *linked) small(n int) {
	w.shell(fmt.Sprintf("n=%d", n) + `
		mkdir -p a/b c e; echo $n > a/b/f; echo $n > a/b/new.$n; rm -f a/b/new.$((n - 1)); chmod 7$((n % 2 * 5))5 a/b
		rm -rf c/x.*; mkdir -p c/x.$n/y; echo $n > c/x.$n/y/z; ln -sfn $n c/s
		ls -d c/r.* >/dev/null 2>&1 || { mkdir -p c/r.0/in; echo moved > c/r.0/in/f; }
		mv c/r.* e/r; echo $n > e/r/in/g; mv e/r c/r.$n
		echo $n > e/l1; ln -f e/l1 e/l2; ln -f e/l2 a/l3; echo $n $n > a/l3; rm -f e/i; mkfifo e/i; setfattr -n user.n -v $n e/l2`)
	w.markAll()
}

// large are two contents that are sent ahead of their operations; a part of one is there already.
func (w *linked) large(n int) {
	rnd := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	fresh := make([]byte, 1100<<10)
	rnd.Read(fresh)
	w.write(fmt.Sprintf("big/new.%d", n), string(fresh))
	os.Remove(w.at("big", fmt.Sprintf("new.%d", n-1)))
	old, err := os.ReadFile(w.at("big", "old"))
	if err != nil {
		old = fresh
	}
	rnd.Read(old[300<<10:][:100<<10])
	w.write("big/old", string(old))
	w.markAll()
}

func (w *linked) shell(script string) {
	w.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = w.master
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// markAll marks every entry of the master.
func (w *world) markAll() {
	w.t.Helper()
	var paths []string
	w.ok(filepath.WalkDir(w.master, func(p string, _ os.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.master, p)
		if rel != "." {
			paths = append(paths, rel)
		}
		return err
	}))
	w.mark(paths...)
}

// claims checks everything that the slave has on record against the master, which stands still: a record vouches for a
// file's content, a stamp for all in and below a directory.
func (w *linked) claims() (checked int) {
	w.t.Helper()
	there, err := beneath.OpenRoot(w.slave, true)
	w.ok(err)
	defer there.Close()
	w.ok(filepath.WalkDir(w.slave, func(p string, e os.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.slave, p)
		if rel == slave.Reserved {
			return filepath.SkipDir
		}
		if rel == "." {
			rel = ""
		}
		if err != nil || !w.claimed(there, rel) {
			return err
		}
		checked++
		if err := same(w.at(rel), p, rel == ""); err != nil {
			w.t.Errorf("%q is on record as what the master has now: %v", rel, err)
		}
		return nil
	}))
	return checked
}

// claimed tells whether the slave's record of path is the master's, or says to be newer.
func (w *linked) claimed(there *beneath.Dir, path string) bool {
	x, g, err := recordOf(there, path, &w.names)
	if err != nil || x == 0 {
		return false
	}
	dir, name := beneath.Split(path)
	d, err := w.root.OpenPath(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	gfid, err := d.GFID(name)
	if err != nil || g != gfid {
		return false
	}
	master, err := d.Xtime(name, &w.names)
	w.ok(err)
	return x >= max(master, w.volume)
}

func recordOf(root *beneath.Dir, path string, names *xtime.Names) (xtime.Time, xtime.GFID, error) {
	dir, name := beneath.Split(path)
	d, err := root.OpenPath(dir)
	if err != nil {
		return 0, xtime.GFID{}, err
	}
	defer d.Close()
	x, err := d.Xtime(name, names)
	g, gfidErr := d.RecordedGFID(name, names)
	return x, g, errors.Join(err, gfidErr)
}

// same compares kinds, names and contents, all the way down.
func same(master, there string, root bool) error {
	a, b := unix.Stat_t{}, unix.Stat_t{}
	if err := errors.Join(unix.Lstat(master, &a), unix.Lstat(there, &b)); err != nil {
		return err
	}
	if a.Mode&unix.S_IFMT != b.Mode&unix.S_IFMT {
		return fmt.Errorf("%s: another kind", there)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		x, err := os.ReadFile(master)
		y, thereErr := os.ReadFile(there)
		if err = errors.Join(err, thereErr); err == nil && string(x) != string(y) {
			err = fmt.Errorf("%s: another content", there)
		}
		return err
	case unix.S_IFDIR:
		return sameNames(master, there, root)
	}
	return nil
}

func sameNames(master, there string, root bool) error {
	have := map[string]int{}
	for i, dir := range []string{master, there} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			have[e.Name()] |= 1 << i
		}
	}
	if root {
		delete(have, slave.Reserved)
	}
	for name, sides := range have {
		if sides != 3 {
			return fmt.Errorf("%s: only one side has it", filepath.Join(there, name))
		}
		if err := same(filepath.Join(master, name), filepath.Join(there, name), false); err != nil {
			return err
		}
	}
	return nil
}

// cutStep is how many bytes lie between one cut and the next: few enough for so many cuts, or GEOREP_CUT_STEP, and where
// much is sent GEOREP_CUT_STEP times so much.
func cutStep(t *testing.T, total int64, cuts int64) int64 {
	if text := os.Getenv("GEOREP_CUT_STEP"); text != "" {
		step, err := strconv.ParseInt(text, 10, 64)
		if err != nil || step < 1 {
			t.Fatalf("GEOREP_CUT_STEP: %q", text)
		}
		return step * (1 + total/10_000)
	}
	return total/cuts | 1
}

// TestCutLine cuts the line after n bytes from master to slave, and after n from slave to master, so that answers are lost:
// nothing that the slave then has on record is newer than what it holds, and a new session makes all equal.
func TestCutLine(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(w *linked, n int)
		down   bool
		cuts   int64
	}{
		{"small, from the master", (*linked).small, false, 15}, {"small, from the slave", (*linked).small, true, 15},
		{"large, from the master", (*linked).large, false, 6}, {"large, from the slave", (*linked).large, true, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newLinked(t)
			for n := range 2 { // the second change is what the others are like
				c.change(w, n)
				w.ok(w.session(&line{left: -1, piece: 1 << 20}))
			}
			probe := &line{left: -1, down: c.down, piece: 1 << 20}
			c.change(w, 2)
			w.ok(w.session(probe))
			step, cuts, claims := cutStep(t, probe.passed, c.cuts), 0, 0
			for n := int64(0); n < probe.passed+step; n += step {
				serial := int(n/step) + 3
				c.change(w, serial)
				l := &line{left: n, down: c.down, piece: []int{1 << 20, 7, 4096}[serial%3]}
				err := w.session(l)
				cuts += int(l.cut)
				claims += w.claims()
				if err == nil && l.cut > 0 && n < probe.passed/2 {
					t.Errorf("cut after %d of %d bytes, but the crawl has ended well", n, probe.passed)
				}
				w.ok(w.session(&line{left: -1, piece: 1 << 20}))
				if err := same(w.master, w.slave, true); err != nil || t.Failed() {
					t.Fatalf("after a cut behind %d of %d bytes: %v", n, probe.passed, err)
				}
			}
			t.Logf("%d cuts of %d bytes, %d claims", cuts, probe.passed, claims)
			if cuts < 5 || claims == 0 {
				t.Errorf("%d cuts, %d claims: the test tests nothing", cuts, claims)
			}
		})
	}
}
