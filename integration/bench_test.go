package integration

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/tree"
	"georep/marker"
	"georep/status"
)

// benchFiles are how many files the benchmarks use; GEOREP_BENCH_FILES makes it another number.
const benchFiles = 100_000

// benchPatience is enough for the first sync of a million files.
const benchPatience = 30 * time.Minute

// BenchmarkFirstSync copies files of 4 KiB to an empty slave: georep and rsync over the same sshd, in turn, in one run,
// on tmpfs. What counts is the ratio.
func BenchmarkFirstSync(b *testing.B) {
	files := number(b, "GEOREP_BENCH_FILES", benchFiles)
	rounds := number(b, "GEOREP_BENCH_ROUNDS", 3)
	dir := fstest.Mount(b, fstest.Tmpfs, fstest.Options{Size: 8 << 30})
	master := filepath.Join(dir, "master")
	mkdir(b, master)
	if err := tree.Many(master, files, 1000, 4096); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		var ours, theirs []float64
		for round := range rounds {
			ours = append(ours, timeGeorep(b, dir, master, round))
			theirs = append(theirs, timeRsync(b, dir, master, round))
		}
		report(b, ours, theirs)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

// report gives the medians and the ratio of georep's time to rsync's.
func report(b *testing.B, ours, theirs []float64) {
	b.Helper()
	b.Logf("georep %.2f s, rsync %.2f s", ours, theirs)
	b.ReportMetric(median(ours), "georep-s")
	b.ReportMetric(median(theirs), "rsync-s")
	b.ReportMetric(median(ours)/median(theirs), "ratio")
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func seconds(do func()) float64 {
	begin := time.Now()
	do()
	return time.Since(begin).Seconds()
}

// timeGeorep is the time of a `georep sync` by a session that is new.
func timeGeorep(b *testing.B, dir, master string, round int) (took float64) {
	b.Helper()
	slave := filepath.Join(dir, fmt.Sprint("georep", round))
	mkdir(b, slave)
	s := newSession(b, master, slave)
	took = seconds(func() { s.must(s.sync()) })
	if err := os.RemoveAll(slave); err != nil {
		b.Fatal(err)
	}
	return took
}

func timeRsync(b *testing.B, dir, master string, round int) (took float64) {
	b.Helper()
	slave := filepath.Join(dir, fmt.Sprint("rsync", round))
	mkdir(b, slave)
	s := &session{t: b, sshd: newSession(b, b.TempDir(), b.TempDir()).sshd}
	took = seconds(func() { s.rsync(b, master+"/", s.sshd.Host+":"+slave+"/") })
	if err := os.RemoveAll(slave); err != nil {
		b.Fatal(err)
	}
	return took
}

// rsync runs rsync over the session's sshd, keeping what georep keeps.
func (s *session) rsync(t testing.TB, from, to string) {
	t.Helper()
	ssh := fmt.Sprintf("ssh -F none -p %d -i %s -o UserKnownHostsFile=%s -o Ciphers=aes128-gcm@openssh.com", s.sshd.Port,
		s.sshd.IdentityFile, s.sshd.KnownHostsFile)
	cmd := exec.Command("rsync", "-aHAX", "--modify-window=-1", "--filter=-x trusted.glusterfs.*", "-e", ssh, from, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
}

// BenchmarkNothingChanged is a sync of a tree in step, beside an rsync that finds nothing to do.
func BenchmarkNothingChanged(b *testing.B) {
	files := number(b, "GEOREP_BENCH_FILES", benchFiles)
	rounds := number(b, "GEOREP_BENCH_ROUNDS", 3)
	dir := fstest.Mount(b, fstest.Tmpfs, fstest.Options{Size: 8 << 30})
	master, slave := filepath.Join(dir, "master"), filepath.Join(dir, "slave")
	mkdir(b, master)
	mkdir(b, slave)
	if err := tree.Many(master, files, 1000, 100); err != nil {
		b.Fatal(err)
	}
	s := newSession(b, master, slave)
	s.patience = benchPatience
	s.must(s.start())
	s.waitStatus("in step", func(st status.Status) bool { return st.Stime != 0 && st.LagSeconds == 0 })
	for b.Loop() {
		var ours, theirs []float64
		for range rounds {
			s.must(s.run("stop", s.masterArg, s.spec))
			ours = append(ours, seconds(func() { s.must(s.start()) }))
			theirs = append(theirs, seconds(func() { s.rsync(b, master+"/", s.sshd.Host+":"+slave+"/") }))
		}
		report(b, ours, theirs)
	}
}

// BenchmarkOneChange is the time from a write on the master until the file is whole on the slave, in a session that is
// idle otherwise.
func BenchmarkOneChange(b *testing.B) {
	files := number(b, "GEOREP_BENCH_FILES", benchFiles)
	dir := fstest.Mount(b, fstest.Tmpfs, fstest.Options{Size: 8 << 30})
	master, slave := filepath.Join(dir, "master"), filepath.Join(dir, "slave")
	mkdir(b, master)
	mkdir(b, slave)
	if err := tree.Many(master, files, 100, 100); err != nil {
		b.Fatal(err)
	}
	s := newSession(b, master, slave)
	s.patience = benchPatience
	s.must(s.start())
	s.waitStatus("in step", func(st status.Status) bool { return st.Stime != 0 && st.LagSeconds == 0 })
	for b.Loop() {
		var took []float64
		for i := range 100 {
			content := strings.Repeat("x", i+1)
			took = append(took, seconds(func() {
				if err := os.WriteFile(filepath.Join(master, "d000003", "f"), []byte(content), 0o644); err != nil {
					b.Fatal(err)
				}
				s.waitFile(filepath.Join(slave, "d000003", "f"), content)
			}))
		}
		slices.Sort(took)
		b.ReportMetric(took[50]*1000, "p50-ms")
		b.ReportMetric(took[98]*1000, "p99-ms")
	}
}

func (s *session) waitFile(path, content string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got, err := os.ReadFile(path)
		if err == nil && string(got) == content {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s does not come: %v", path, err)
		}
		pause(s.t, time.Millisecond)
	}
}

// BenchmarkMemory reports the peak memory of each process after a first sync and a restart.
func BenchmarkMemory(b *testing.B) {
	files := number(b, "GEOREP_BENCH_FILES", benchFiles)
	dir := fstest.Mount(b, fstest.Tmpfs, fstest.Options{Size: 16 << 30, MountOptions: "nr_inodes=0"})
	master, slave := filepath.Join(dir, "master"), filepath.Join(dir, "slave")
	mkdir(b, master)
	mkdir(b, slave)
	if err := tree.Many(master, files, 1000, 10); err != nil {
		b.Fatal(err)
	}
	s := newSession(b, master, slave)
	s.patience = benchPatience
	for b.Loop() {
		s.must(s.start())
		s.waitStatus("in step", func(st status.Status) bool { return st.Stime != 0 && st.LagSeconds == 0 })
		st := s.status()
		ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d"))
		if err != nil {
			b.Fatal(err)
		}
		for name, pid := range map[string]int{"worker": st.WorkerPid, "monitor": st.MonitorPid, "marker": ms.PID, "agent": s.agentPid()} {
			b.ReportMetric(peakMiB(b, pid), name+"-MiB")
		}
	}
}

// peakMiB is the largest resident set the process ever had.
func peakMiB(b *testing.B, pid int) float64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatalf("no peak memory of process %d", pid)
	return 0
}
