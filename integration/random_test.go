package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"georep/integration/harness/asuser"
	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/internal/beneath"
	"georep/marker"
	"georep/status"
)

// number reads a size of these tests from the environment: the soak target makes them larger than CI has time for.
func number(t testing.TB, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// profileOf chooses a mixture of random operations by the seed; each set of seeds begins with another one, so that every
// profile meets every file system. The environment may ask for one.
func profileOf(seed int, profiles ...string) string {
	if p := os.Getenv("GEOREP_PROFILE"); p != "" {
		return p
	}
	return profiles[(seed+max(0, seed-1)/len(profiles))%len(profiles)]
}

// TestRandom does random operations of every kind on the master while a session runs. A failing seed replays with
// GEOREP_SEED.
func TestRandom(t *testing.T) {
	seeds, operations := number(t, "GEOREP_SEEDS", 4), number(t, "GEOREP_OPERATIONS", 2000)
	first := number(t, "GEOREP_SEED", 1)
	kinds := fstest.All()
	for seed := first; seed < first+seeds; seed++ {
		kind, profile := kinds[seed%len(kinds)], profileOf(seed, "default", "links", "renames", "exchange")
		t.Run(fmt.Sprintf("seed %d %s %s", seed, kind, profile), func(t *testing.T) {
			master, slave := twoSides(t, fstest.Mount(t, kind, fstest.Options{Size: 1 << 30}))
			s := newSession(t, master, slave)
			start := []string{"--max-delete", "100", "--log-level", logLevel()}
			if hints := os.Getenv("GEOREP_HINTS"); hints != "" {
				start = append(start, "--hints", hints)
			}
			s.must(s.start(start...))
			m, err := mutate.New(master, uint64(seed), mutate.Options{Profile: profile})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Run(t.Context(), operations, 0); err != nil {
				t.Fatalf("%v\n%s", err, m)
			}
			s.converge(m)
		})
	}
}

// TestRandomByInotify has the same where an ordinary user's marker watches every directory, and where root's does on an
// overlay.
func TestRandomByInotify(t *testing.T) {
	operations, seed := number(t, "GEOREP_OPERATIONS", 2000), uint64(number(t, "GEOREP_SEED", 1))
	t.Run("ordinary user", func(t *testing.T) {
		dir, here := asuser.Again(t)
		if !here {
			return
		}
		master, slave := twoSides(t, dir)
		s := &session{t: t, master: master, slave: slave, state: filepath.Join(dir, "state"), races: t.TempDir(),
			masterArg: master, spec: "file://" + slave}
		t.Cleanup(s.end)
		// All but what cannot carry a user xattr: of that, further names are not kept; see docs/limits.md.
		weights := map[string]int{}
		for _, op := range mutate.Operations() {
			if !slices.Contains([]string{"symlink", "resymlink", "fifo", "socket", "device", "chown"}, op) {
				weights[op] = 3
			}
		}
		s.randomByInotify(seed, operations, mutate.Options{Unprivileged: os.Geteuid() != 0, Weights: weights})
	})
	t.Run("root on an overlay", func(t *testing.T) {
		master := fstest.Mount(t, fstest.Overlay, fstest.Options{Size: 1 << 30})
		s := newSession(t, master, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
		s.randomByInotify(seed, operations, mutate.Options{Profile: profileOf(int(seed), "renames", "exchange")})
	})
}

func (s *session) randomByInotify(seed uint64, operations int, o mutate.Options) {
	s.t.Helper()
	m, err := mutate.New(s.master, seed, o)
	if err != nil {
		s.t.Fatal(err)
	}
	start := []string{"--max-delete", "100", "--log-level", logLevel()}
	create := []string{"create", s.masterArg, s.spec}
	if s.sshd != nil {
		start, create = append(s.flags(), start...), append(create, s.flags()...)
	}
	s.must(s.run(create...))
	s.must(s.run("config", s.masterArg, s.spec, "marker-source", "inotify"))
	s.must(s.run(append([]string{"start", s.masterArg, s.spec}, start...)...))
	s.waitStatus("inotify", func(st status.Status) bool { return st.Marker == "inotify" })
	if err := m.Run(s.t.Context(), operations, 0); err != nil {
		s.t.Fatalf("%v\n%s", err, m)
	}
	s.converge(m)
	if st := s.status(); st.Marker != "inotify" {
		s.t.Errorf("the marker's source is %q in the end", st.Marker)
	}
}

// converge waits until the slave is equal and says so, and judges once more by rsync.
func (s *session) converge(m *mutate.Mutator) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := compare.Wait(ctx, s.master, s.slave, compare.Replica()); err != nil {
		s.records()
		s.stacks()
		s.t.Fatalf("%v\nstatus: %+v\n%s", err, s.status(), m)
	}
	s.waitSynced()
}

// stacks makes the worker say what it is doing, into the session's log, and end.
func (s *session) stacks() {
	if pid := s.status().WorkerPid; pid > 1 && isGeorep(pid) {
		_ = syscall.Kill(pid, syscall.SIGQUIT)
		pause(s.t, time.Second)
	}
}

// namesOf shows which names the slave has of the inodes whose number of names differs, in .georep too.
func (s *session) namesOf(found []compare.Difference) {
	for _, d := range found {
		st, err := os.Lstat(filepath.Join(s.slave, d.Path))
		if err == nil && d.Kind == compare.Nlink {
			out, _ := exec.Command("find", s.slave, "-inum", fmt.Sprint(st.Sys().(*syscall.Stat_t).Ino)).CombinedOutput()
			s.t.Logf("the slave's names of %q:\n%s", d.Path, out)
			s.booksOf(d.Path)
		}
	}
}

// booksOf shows what the slave's books say of an inode.
func (s *session) booksOf(path string) {
	d, err := beneath.OpenRoot(filepath.Dir(filepath.Join(s.master, path)), false)
	if err != nil {
		return
	}
	defer d.Close()
	g, _ := d.GFID(filepath.Base(path))
	book, _ := os.ReadFile(filepath.Join(s.slave, ".georep/links", g.String()[:2], g.String()))
	mark, _ := os.Readlink(filepath.Join(s.slave, ".georep/pending", g.String()))
	s.t.Logf("its book: %q, its mark: %q", book, mark)
}

// records shows, for each path that differs, what master and slave have on record, from there up to the root.
func (s *session) records() {
	found, err := compare.Trees(s.master, s.slave, compare.Replica())
	if err != nil {
		s.t.Log(err)
	}
	seen := map[string]bool{}
	for _, d := range found {
		for path := d.Path; !seen[path]; path = filepath.Dir(path) {
			seen[path] = true
			for _, root := range []string{s.master, s.slave} {
				out, _ := exec.Command("getfattr", "-hd", "-m", "glusterfs", "-e", "hex", "--absolute-names",
					filepath.Join(root, path)).CombinedOutput()
				st, err := os.Lstat(filepath.Join(root, path))
				if err == nil {
					sys := st.Sys().(*syscall.Stat_t)
					out = fmt.Appendf(out, "ino %d nlink %d ctime %x.%d\n", sys.Ino, sys.Nlink, sys.Ctim.Sec, sys.Ctim.Nsec)
				}
				if d, err := beneath.OpenRoot(filepath.Dir(filepath.Join(root, path)), false); err == nil {
					g, _ := d.GFID(filepath.Base(path))
					out = fmt.Appendf(out, "gfid %s\n", g)
					d.Close()
				}
				s.t.Logf("%s", out)
			}
		}
	}
}

// TestKills ends a random process of the session with SIGKILL, again and again, under load.
func TestKills(t *testing.T) {
	kills := number(t, "GEOREP_KILLS", 8)
	seed := uint64(number(t, "GEOREP_SEED", 1))
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100", "--retry-max", "1s"))
	m, err := mutate.New(master, seed, mutate.Options{Profile: profileOf(0, "default")})
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 7))
	killed := map[string]int{}
	for len(killed) < 4 || total(killed) < kills {
		s.killSome(m, rnd, killed, min(kills, total(killed)+killsInARow))
		s.ensureStarted()
		s.converge(m)
	}
	t.Logf("killed %v", killed)
}

// killsInARow is how many kills there are before both sides have to become equal: a slave that never is in step keeps all
// that was removed.
const killsInARow = 50

// killSome kills under load until so many, and one of each, are killed.
func (s *session) killSome(m *mutate.Mutator, rnd *rand.Rand, killed map[string]int, upTo int) {
	s.t.Helper()
	ctx, stop := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		if err := m.Run(ctx, 0, 2*time.Millisecond); err != nil {
			s.t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * patience); len(killed) < 4 || total(killed) < upTo; {
		s.waitStatus("up again", func(st status.Status) bool { return st.State == status.Active })
		pause(s.t, time.Duration(rnd.IntN(600))*time.Millisecond)
		if which := s.killOne(rnd); which != "" {
			killed[which]++
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("only %v were up to be killed", killed)
		}
	}
}

// killOne kills the worker, the agent, the marker or the monitor; a monitor that is gone is started again, as an
// operator would.
func (s *session) killOne(rnd *rand.Rand) (killed string) {
	s.t.Helper()
	st := s.status()
	which, pid := "worker", st.WorkerPid
	switch rnd.IntN(4) {
	case 0:
		which, pid = "agent", s.agentPid()
	case 1:
		which, pid = "monitor", st.MonitorPid
	case 2:
		which = "marker"
		if ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d")); err == nil {
			pid = ms.PID
		}
	}
	if pid <= 1 || !isGeorep(pid) {
		return "" // down at this moment, and on its way up
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		s.t.Fatal(err)
	}
	if which == "monitor" {
		s.waitGone()
		s.ensureStarted()
	}
	return which
}

func total(counts map[string]int) (sum int) {
	for _, n := range counts {
		sum += n
	}
	return sum
}

// waitGone waits until the killed monitor has given up its lock: until then a start would find it running.
func (s *session) waitGone() {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.state, "sessions", "*", "pid"))
	if err != nil || len(files) != 1 {
		s.t.Fatalf("pid files: %v, %v", files, err)
	}
	for deadline := time.Now().Add(patience); ; pause(s.t, time.Millisecond) {
		if _, up := status.Running(files[0]); !up {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the killed monitor does not end")
		}
	}
}

// ensureStarted starts the session if its monitor is gone.
func (s *session) ensureStarted() {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		r := s.run("start", s.masterArg, s.spec)
		if r.code == 0 || strings.Contains(r.stderr, "already running") || strings.Contains(r.stderr, "keeps trying") {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("start: %+v", r)
		}
		pause(s.t, 100*time.Millisecond)
	}
}

// agentPid reads the pid that the agent left in the lock of the slave.
func (s *session) agentPid() int {
	text, err := os.ReadFile(filepath.Join(s.slave, ".georep", "lock"))
	if err != nil {
		return 0
	}
	for _, word := range strings.Fields(string(text)) {
		if pid, err := strconv.Atoi(word); err == nil {
			return pid
		}
	}
	return 0
}

// isGeorep guards against a pid that has become somebody else's.
func isGeorep(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(exe, binary)
}

// logLevel of the sessions: a failure may want to be seen in detail.
func logLevel() string {
	if l := os.Getenv("GEOREP_LOG_LEVEL"); l != "" {
		return l
	}
	return "info"
}
