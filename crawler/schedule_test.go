package crawler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	psftp "github.com/pkg/sftp"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/sftp"
)

// TestSchedules has a seed decide in which order everything happens: what changes on the master, when that is marked and
// told, in which way hints come, which of the crawl's calls is answered next, and what fails for a while. Nothing else goes on
// at the same time, and after each answer every stamp on the slave is held against what the master had.
//
// GEOREP_SEED and GEOREP_SEEDS choose the seeds, GEOREP_FS the file systems: one of fstest's, several with commas between
// them, or "dir" for the directory of temporary files.
func TestSchedules(t *testing.T) {
	kinds := []string{fstest.Tmpfs}
	if text := os.Getenv("GEOREP_FS"); text != "" {
		kinds = strings.Split(text, ",")
	}
	for _, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			top := t.TempDir()
			if kind != "dir" {
				top = fstest.Mount(t, kind, fstest.Options{Size: 1 << 30})
			}
			for seed := range seeds(t, 3) {
				for _, hints := range []bool{true, false} {
					for _, overSFTP := range []bool{false, true} {
						runSchedule(t, top, seed, hints, overSFTP)
					}
				}
			}
		})
	}
}

func runSchedule(t *testing.T, top string, seed uint64, hints, overSFTP bool) {
	name := fmt.Sprintf("seed %d", seed)
	if hints {
		name += " by hints"
	}
	if overSFTP {
		name += " over SFTP"
	}
	t.Run(name, func(t *testing.T) {
		dir, err := os.MkdirTemp(top, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.RemoveAll(dir); err != nil {
				t.Error(err)
			}
		})
		synctest.Test(t, func(t *testing.T) {
			s := &schedule{t: t, dir: dir, rnd: rand.New(rand.NewPCG(seed, 21)), hints: hints, overSFTP: overSFTP}
			s.run()
		})
	})
}

// schedule is one run.
type schedule struct {
	t        *testing.T
	dir      string
	rnd      *rand.Rand
	hints    bool
	overSFTP bool
	calm     bool // hints come as they should, and the session lasts
	giveWay  bool // names that inodes get give way to what is marked meanwhile
	focus    int  // how many of eight changes are to young directories

	w       *world
	c       *conductor
	r       *randomly
	book    claims
	queue   []unmarked
	further map[spot]xtime.GFID // names that inodes got beside others
	time    testClock           // by which files wait
	pass    chan error          // of the crawl that goes on; nil: none
	bad     string              // entries of this name fail
	texts   int
	log     []string
}

// unmarked is a change that the marker has not come to yet.
type unmarked struct {
	state int // by which operation
	spot
}

const scheduleSteps = 300

func (s *schedule) run() {
	time.Sleep(time.Until(realTime())) // the clock of the bubble begins in the year 2000
	defer s.abandon()
	s.begin()
	for range scheduleSteps {
		s.step()
	}
	s.end()
}

// abandon ends the crawl of a schedule that failed.
func (s *schedule) abandon() {
	if s.pass != nil {
		s.c.hangUp()
		<-s.pass
	}
}

// realTime is that of the file system, whatever the time is in the bubble.
func realTime() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return time.Time{}
	}
	return time.Unix(ts.Unix())
}

// begin makes the two sides, in step.
func (s *schedule) begin() {
	master, there := filepath.Join(s.dir, "master"), filepath.Join(s.dir, "slave")
	for _, d := range []string{master, there} {
		if err := os.Mkdir(d, 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	w := newMaster(s.t, master, there)
	s.w = w
	w.now = xtime.FromTime(realTime())
	w.volume = w.now
	w.maxDelete = 100
	if s.hints {
		w.hints = &crawler.Hints{}
		w.hints.Up()
	}
	s.time.set(time.Now())
	s.giveWay = s.rnd.IntN(3) > 0
	s.calm, s.focus = s.rnd.IntN(2) == 0, []int{3, 5, 7}[s.rnd.IntN(3)]
	if wait := []time.Duration{0, 30, 300, 300}[s.rnd.IntN(4)] * time.Millisecond; wait > 0 {
		w.settle, w.delay, w.clock = wait, 3*wait, s.time.now
	}
	w.wrap = func(t slave.Tree) slave.Tree {
		s.c = &conductor{Tree: t, fail: s.fail}
		return s.c
	}
	s.r = &randomly{w: w, rnd: s.rnd}
	s.book.bySize = s.overSFTP
	s.book.linked, s.further = map[xtime.GFID]bool{}, map[spot]xtime.GFID{}
	for _, d := range []string{"p", "p/q", "p/q/r", "p/q/r/s", "a", "a/b", "a/b/c", "e"} {
		w.ok(os.MkdirAll(w.at(d), 0o755))
		s.put(d + "/f" + d[len(d)-1:])
		w.ok(unix.Mknod(w.at(d+"/c"+d[len(d)-1:]), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
	}
	w.now = xtime.FromTime(realTime())
	w.mark("")
	w.volume = w.now
	s.book.note(w, "the beginning")
	s.book.covered(1, w.now)
	s.connect()
	s.onTheirOwn()
	if s.rnd.IntN(3) == 0 {
		s.twoCopies()
	}
	if s.rnd.IntN(2) == 0 {
		s.bad = "bad"
	}
}

// twoCopies has the slave get a second copy of a directory, which defers something, while the first is parked: the directory is
// young, something in it fails, something else waits, and it moves.
func (s *schedule) twoCopies() {
	places := []string{"p/q/D", "p/D", "p/q/r/s/D", "a/b/D", "e/D", "a/D"}
	s.rnd.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
	do := func(what string, paths []string, do func() error) { s.w.ok(s.did(what, paths, do)) }
	crawlNow := func() {
		s.pace()
		s.mark(len(s.queue))
		s.onTheirOwn()
	}
	now, tick := s.time.now(), unix.NsecToTimespec(int64(12*time.Millisecond))
	s.w.ok(unix.Nanosleep(&tick, nil)) // real time: births come from a clock that ticks, and are to be after the last stamp
	s.bad = "bad"
	do("make and fill", []string{places[0], places[0] + "/hot", places[0] + "/bad", places[0] + "/f"}, func() error {
		return errors.Join(os.Mkdir(s.w.at(places[0]), 0o755), s.write(places[0]+"/hot"), s.write(places[0]+"/bad"),
			s.write(places[0]+"/f"))
	})
	crawlNow()
	s.bad = ""
	for i := range 2 + s.rnd.IntN(2) {
		from, to := places[i], places[i+1]
		s.time.set(now)
		in := from + "/" + []string{"hot", "bad", "f", "g"}[s.rnd.IntN(4)]
		do("write "+in, []string{in}, func() error { return s.write(in) })
		if i == 0 {
			do("remove", []string{from + "/bad"}, func() error { return os.Remove(s.w.at(from, "bad")) })
			do("write", []string{from + "/hot"}, func() error { return s.write(from + "/hot") })
		}
		do(s.rename("rename", from, to, 0))
		crawlNow()
	}
	s.time.set(s.time.now().Add(time.Hour))
	crawlNow() // what waited is shipped, and stamped
}

// onTheirOwn does a crawl that nothing disturbs.
func (s *schedule) onTheirOwn() {
	s.t.Helper()
	s.crawl()
	for s.pass != nil {
		s.pace()
		if waiting := s.c.calls(); len(waiting) > 0 {
			s.say("answered: %s", waiting[0].key)
			s.c.let(waiting[0])
		}
		synctest.Wait()
		s.ended()
	}
	s.check(-1)
}

// connect opens the slave anew.
func (s *schedule) connect() {
	if s.overSFTP {
		s.w.connectSFTP()
	} else {
		s.w.connect()
	}
	if s.giveWay {
		s.w.crawler.InSteps(2+uint32(s.rnd.IntN(2)), int64(s.rnd.IntN(4)))
		s.t.Cleanup(s.w.crawler.Beside(s.t.Context()))
	}
}

// connectSFTP is connect for a slave by SFTP.
func (w *world) connectSFTP() {
	w.t.Helper()
	if w.tree != nil {
		w.ok(w.tree.Close())
	}
	tree, err := sftp.Open(w.t.Context(), sftp.Options{Path: w.slave, Host: "test", Master: w.uuid, Session: w.session,
		Version: "test", Force: true, Streams: 1, Logger: zerolog.Nop(),
		Open: func(context.Context, int) (io.ReadWriteCloser, error) { return serveSFTP(w.t) }})
	w.ok(err)
	w.t.Cleanup(func() { tree.Close() })
	w.over(tree)
}

// serveSFTP runs a server in this process.
func serveSFTP(t *testing.T) (io.ReadWriteCloser, error) {
	ar, aw := io.Pipe()
	br, bw := io.Pipe()
	server, err := psftp.NewServer(twoPipes{ar, bw, ar})
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve() // until the other end is closed
		server.Close()
	}()
	t.Cleanup(func() { <-ended })
	return twoPipes{br, aw, br}, nil
}

type twoPipes struct {
	io.Reader
	io.WriteCloser
	other io.Closer
}

func (p twoPipes) Close() error { return errors.Join(p.WriteCloser.Close(), p.other.Close()) }

// step lets one thing happen.
func (s *schedule) step() {
	s.pace()
	s.ended()
	waiting, share := s.c.calls(), 55
	if s.calm {
		share = 75
	}
	switch n := s.rnd.IntN(100); {
	case s.pass == nil && n < 40:
		s.crawl()
	case s.pass == nil && n < 45 && s.hints:
		s.say("absorbed: %v", s.w.crawler.Absorb())
	case len(waiting) > 0 && n < share:
		s.letGo(waiting)
	case n < (share+100)/2:
		s.change()
	case n < 94:
		s.mark(1 + s.rnd.IntN(max(1, len(s.queue))))
	case n < 97:
		s.trouble()
	case n < 98 && s.pass != nil && !s.calm:
		s.say("the session ends")
		s.c.hangUp()
	}
	synctest.Wait()
	if s.c.changed() {
		s.check(-1)
	}
}

func (s *schedule) say(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}

// pace lets the clock of the bubble keep up with that of the file system, so that what waits for a time goes on.
func (s *schedule) pace() {
	time.Sleep(max(time.Until(realTime()), time.Millisecond))
	s.time.set(s.time.now().Add(time.Duration(s.rnd.IntN(8)) * time.Millisecond))
	synctest.Wait()
}

// crawl begins a crawl.
func (s *schedule) crawl() {
	s.say("a crawl")
	s.pass = make(chan error, 1)
	go func(done chan error, c *crawler.Crawler) {
		_, err := c.Pass(s.t.Context())
		done <- err
	}(s.pass, s.w.crawler)
}

// ended takes note of the end of a crawl.
func (s *schedule) ended() {
	if s.pass == nil {
		return
	}
	select {
	case err := <-s.pass:
		s.pass = nil
		s.say("the crawl ends: %v", err)
		if err != nil && !errors.Is(err, errCut) {
			s.t.Fatal(err)
		}
		if err != nil {
			s.connect()
		}
	default:
	}
}

// letGo answers one of the calls that wait, or two at the same time; now and then the answer is lost.
func (s *schedule) letGo(waiting []*call) {
	i := s.rnd.IntN(len(waiting))
	chosen := []*call{waiting[i]}
	if len(waiting) > 1 && s.rnd.IntN(8) == 0 {
		chosen = append(chosen, waiting[(i+1)%len(waiting)])
	}
	if !s.calm && s.rnd.IntN(60) == 0 {
		chosen[0].lost = true
	}
	for _, one := range chosen {
		s.say("answered (lost: %v): %s", one.lost, one.key)
	}
	s.c.let(chosen...)
}

// fail is what the slave says of an operation.
func (s *schedule) fail(op *slave.Op) error {
	if s.bad != "" && op.Kind != slave.OpPark && filepath.Base(op.Path) == s.bad {
		return unix.EIO
	}
	return nil
}

// trouble has entries of a name fail, or ends that.
func (s *schedule) trouble() {
	switch {
	case s.bad != "":
		s.bad = ""
	case s.rnd.IntN(3) > 0:
		s.bad = "bad"
	default:
		s.bad = filepath.Base(s.pick(false))
	}
	s.say("fails: %q", s.bad)
}

// mark has the marker come to the first changes of the queue.
func (s *schedule) mark(n int) {
	n = min(n, len(s.queue))
	spots := make([]spot, n)
	for i := range spots {
		spots[i] = s.queue[i].spot
	}
	s.queue = s.queue[n:]
	paths := s.w.where(spots)
	s.w.now = max(s.w.now, xtime.FromTime(realTime()))
	switch {
	case !s.hints:
		s.w.mark(paths...)
	case s.calm:
		s.w.tell(paths...)
	default:
		s.r.deliver(s.w.hint(paths...))
	}
	before := len(s.book.states)
	if len(s.queue) > 0 {
		before = s.queue[0].state
	}
	s.book.covered(before, s.w.now)
	s.say("marked %v: %q", s.w.now, paths)
}

// check holds every stamp against the books. all is a state that the whole tree has to have.
func (s *schedule) check(all int) {
	s.t.Helper()
	if found := s.book.lies(s.w, s.c.Tree, all); len(found) > 0 {
		for i, did := range s.book.did {
			s.t.Logf("state %d, marked %v: %s", i, s.book.covers[i], did)
		}
		s.t.Fatalf("%s\n%s", strings.Join(s.log, "\n"), strings.Join(found, "\n"))
	}
}

// end lets everything come to rest, and compares.
func (s *schedule) end() {
	s.bad = ""
	for s.pass != nil {
		s.pace()
		if waiting := s.c.calls(); len(waiting) > 0 {
			s.letGo(waiting)
		}
		synctest.Wait()
		s.ended()
	}
	s.mark(len(s.queue))
	for k := 0; k < 5 || k < 500 && s.leaves(); k++ {
		s.time.set(s.time.now().Add(time.Hour))
		time.Sleep(time.Second)
		s.onTheirOwn()
	}
	time.Sleep(2 * time.Second)
	s.w.ok(s.w.crawler.Clean(s.t.Context(), 0)) // what is parked counts as a name of its inode
	s.onTheirOwn()
	s.c.letAll()
	list, _ := s.w.crawler.Failures(3)
	look, err := s.w.crawler.Look(s.t.Context())
	s.w.ok(err)
	if !look.InStep() {
		s.t.Fatalf("%s\nnot in step at the end, failures %v", strings.Join(s.log, "\n"), list)
	}
	clear(s.book.linked) // now they are to be right, too
	s.check(len(s.book.states) - 1)
	if !s.overSFTP {
		compare.MustEqual(s.t, s.w.master, s.w.slave, compare.Replica())
	}
}

// leaves tells whether crawls have given way, and left names.
func (s *schedule) leaves() bool {
	_, total, _ := s.w.crawler.Waiting(0)
	return total > 0
}

// pick gives the path of a directory, or of something else; "" where there is none.
func (s *schedule) pick(dir bool) string {
	all := s.list(dir)
	if len(all) == 0 {
		return ""
	}
	return all[s.rnd.IntN(len(all))]
}

func (s *schedule) list(dir bool) (all []string) {
	s.w.ok(filepath.WalkDir(s.w.master, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(s.w.master, path); err == nil && d.IsDir() == dir && rel != "." {
			all = append(all, rel)
		}
		return err
	}))
	slices.Sort(all)
	return all
}

// testClock is set by the schedule and read by crawls.
type testClock struct{ at atomic.Int64 }

func (c *testClock) now() time.Time  { return time.Unix(0, c.at.Load()) }
func (c *testClock) set(t time.Time) { c.at.Store(t.UnixNano()) }
