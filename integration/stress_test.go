package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/marker"
	"georep/status"
)

// TestStress has two writers change the master as fast as they can, in directories that move and change places all the time,
// while busy loops take the processors and each process of the session in turn stands still for moments. Once the status
// says that the slave is in step, it must be. GEOREP_STRESS is the number of rounds, dealt over file systems
// (GEOREP_STRESS_FS), slaves (GEOREP_STRESS_SLAVES) and hints; GEOREP_SEED replays the operations of a round, not their moments.
func TestStress(t *testing.T) {
	rounds, seed := number(t, "GEOREP_STRESS", 3), number(t, "GEOREP_SEED", 1)
	kinds := words("GEOREP_STRESS_FS", fstest.Ext4, fstest.Tmpfs, fstest.XFS, fstest.Btrfs)
	slaves := words("GEOREP_STRESS_SLAVES", "agent", "sftp")
	// Each file system meets each slave, with hints and without, and those that come first differ in all.
	ways := 2 * len(slaves)
	for i := range ways * len(kinds) {
		kind, way := kinds[i%len(kinds)], (i+i/len(kinds))%ways
		slave, hints := slaves[way/2], []string{"on", "off"}[way%2]
		mine := (rounds + ways*len(kinds) - 1 - i) / (ways * len(kinds))
		if mine == 0 {
			return
		}
		t.Run(fmt.Sprintf("%s %s hints %s", kind, slave, hints), func(t *testing.T) {
			newStress(t, kind, slave, hints).rounds(mine, uint64(seed+1000*i))
		})
	}
}

// words reads a list from the environment.
func words(name string, otherwise ...string) []string {
	if text := os.Getenv(name); text != "" {
		return strings.Split(text, ",")
	}
	return otherwise
}

// stress is a session under stress.
type stress struct {
	*session
	sftp bool
	rnd  *rand.Rand
}

func newStress(t *testing.T, kind, slave, hints string) *stress {
	t.Helper()
	master, copy := twoSides(t, fstest.Mount(t, kind, fstest.Options{Size: 1 << 30}))
	s := &stress{sftp: slave == "sftp"}
	flags := []string{"--max-delete", "100", "--log-level", logLevel(), "--hints", hints}
	if s.sftp {
		s.session = sftpSession(t, master, copy, sftpServers()["OpenSSH"])
		s.must(s.session.run(append(append([]string{"start", "data", s.spec}, s.sftpFlags()...), flags...)...))
	} else {
		s.session = newSession(t, master, copy)
		s.must(s.start(flags...))
	}
	return s
}

// run does the rounds: each in directories of its own, while those of the round before go.
func (s *stress) rounds(rounds int, seed uint64) {
	s.waitStatus("active", func(st status.Status) bool { return st.State == status.Active })
	for n := range rounds {
		s.rnd = rand.New(rand.NewPCG(seed+uint64(n), 23))
		if n > 0 {
			if err := os.RemoveAll(filepath.Join(s.master, fmt.Sprint("round", n-1))); err != nil {
				s.t.Fatal(err)
			}
		}
		top := filepath.Join(s.master, fmt.Sprint("round", n))
		s.round(top, seed+uint64(n))
	}
	if s.sftp {
		s.restored() // what is in the index alone, too
	}
}

// round does one load, and holds the status to its word after that.
func (s *stress) round(top string, seed uint64) {
	s.t.Helper()
	operations := number(s.t, "GEOREP_OPERATIONS", 3000) / 2
	var writers []*mutate.Mutator
	for _, dir := range []string{"a", "b"} {
		dir = filepath.Join(top, dir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			s.t.Fatal(err)
		}
		m, err := mutate.New(dir, 2*seed+uint64(len(writers)), mutate.Options{
			Profile: profileOf(0, "exchange"), MaxEntries: 300, MaxFile: 64 << 10,
			History: number(s.t, "GEOREP_STRESS_HISTORY", 64)})
		if err != nil {
			s.t.Fatal(err)
		}
		writers = append(writers, m)
	}
	giveBack := s.takeProcessors(seed)
	pace := time.Duration(s.rnd.IntN(3)) * time.Millisecond / 2
	var wg sync.WaitGroup
	for _, m := range writers {
		wg.Go(func() {
			if err := m.Run(s.t.Context(), operations, pace); err != nil {
				s.t.Errorf("%v\n%s", err, m)
			}
		})
	}
	wg.Wait()
	end := time.Now()
	giveBack()
	s.waitStatus("in step", func(st status.Status) bool {
		return st.State == status.Active && st.LagSeconds == 0 && st.LastSynced.After(end)
	})
	if err := s.differ(); err != nil {
		s.records()
		s.t.Fatalf("in step, and different: round of seed %d: %v\nstatus: %+v\n%s%s", seed, err, s.status(), writers[0], writers[1])
	}
}

// differ compares now. Only by SFTP, that what is parked counts as a name of a file may still be so for a moment.
func (s *stress) differ() error {
	opts := compare.Replica()
	if s.sftp {
		opts = sftpShows(s.master, s.slave, true)
	}
	maybe := func(d compare.Difference) bool { return s.sftp && d.Kind == compare.Nlink }
	for end := time.Now().Add(time.Minute); ; pause(s.t, 50*time.Millisecond) {
		found, err := compare.Trees(s.master, s.slave, opts)
		if err == nil && len(found) == 0 && s.sftp {
			err = sftpTimes(s.master, s.slave, true)
		}
		if err != nil || len(found) == 0 {
			return err
		}
		sure := slices.ContainsFunc(found, func(d compare.Difference) bool { return !maybe(d) })
		if sure || time.Now().After(end) {
			s.namesOf(found)
			return fmt.Errorf("%d differences:\n%s", len(found), compare.List(found))
		}
	}
}

// takeProcessors has busy loops run, and stops worker, agent and marker in turn, until the returned function is called.
func (s *stress) takeProcessors(seed uint64) (giveBack func()) {
	s.t.Helper()
	var busy []*exec.Cmd
	for range number(s.t, "GEOREP_STRESS_BUSY", 2) {
		cmd := exec.Command("timeout", "300", "sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			s.t.Fatal(err)
		}
		busy = append(busy, cmd)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.stopInTurn(ctx, rand.New(rand.NewPCG(seed, 29))) })
	return func() {
		cancel()
		for _, cmd := range busy {
			_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
			_ = cmd.Wait()
		}
		wg.Wait()
	}
}

// stopInTurn has one process at a time stand still for up to 300 ms.
func (s *stress) stopInTurn(ctx context.Context, rnd *rand.Rand) {
	rest := func(most int) {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rnd.IntN(most)) * time.Millisecond):
		}
	}
	for turn := 0; ctx.Err() == nil; turn++ {
		pids := s.pidsOf(turn % 3)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGSTOP)
		}
		rest(300)
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGCONT)
		}
		rest(60)
	}
}

// pidsOf are the worker's, the far end's or the marker's.
func (s *stress) pidsOf(which int) (pids []int) {
	switch which {
	case 0:
		if files, err := filepath.Glob(filepath.Join(s.state, "sessions", "*", "status")); err == nil && len(files) == 1 {
			if st, err := status.Read(files[0]); err == nil {
				pids = []int{st.WorkerPid}
			}
		}
	case 1:
		if s.sftp {
			return s.sshd.Children()
		}
		pids = []int{s.agentPid()}
	default:
		if ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d")); err == nil {
			pids = []int{ms.PID}
		}
	}
	return slices.DeleteFunc(pids, func(pid int) bool { return pid <= 1 || !isGeorep(pid) })
}
