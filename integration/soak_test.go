package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/mutate"
	"georep/marker"
	"georep/status"
)

// sample is what the processes of a session hold at one moment.
type sample map[string]usage

// usage is what one process holds.
type usage struct {
	memory int // KiB, resident
	files  int // descriptors
}

// sampled looks at the processes of the session.
func (s *session) sampled() sample {
	st := s.status()
	pids := map[string]int{"worker": st.WorkerPid, "monitor": st.MonitorPid, "agent": s.agentPid()}
	if ms, err := marker.ReadStatus(filepath.Join(s.state, "volumes", "data.d")); err == nil {
		pids["marker"] = ms.PID
	}
	out := sample{}
	for name, pid := range pids {
		if pid > 1 && isGeorep(pid) {
			out[name] = usageOf(pid)
		}
	}
	return out
}

func usageOf(pid int) (u usage) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			u.memory, _ = strconv.Atoi(strings.Fields(rest)[0])
		}
	}
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	u.files = len(list)
	return u
}

// Bounds of a soak: what memory may differ by between the second quarter and the last one, and what descriptors may when
// nothing is going on.
const (
	soakMemory = 12 << 10 // KiB
	soakFiles  = 24
	soakWarm   = 2 * time.Minute // shorter ones are over before memory is level
	soakBreath = 10_000          // operations between two moments at which the slave may come in step
)

// TestSoak has a random load on a session for GEOREP_SOAK, a few seconds where that is not set: the memory of every
// process is level in the end, no descriptor is left open, and both sides are equal.
func TestSoak(t *testing.T) {
	duration := time.Second
	if text := os.Getenv("GEOREP_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 2 << 30}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100"))
	s.waitSynced()
	m, err := mutate.New(master, uint64(number(t, "GEOREP_SEED", 1)), mutate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	idle := s.sampled()
	samples := s.soak(m, duration)
	s.converge(m)
	t.Logf("%d operations, %d samples; idle first %v, last %v", m.Steps(), len(samples), idle, samples[len(samples)-1])
	s.settleFiles(idle)
	if duration >= soakWarm {
		level(t, samples)
	}
}

// TestParkedGoesUnderLoad: changes that keep coming do not let the slave be in step, and what is removed meanwhile must not
// stay there for ever.
func TestParkedGoesUnderLoad(t *testing.T) {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Ext4, fstest.Options{Size: 1 << 30}))
	s := newSession(t, master, slave)
	s.must(s.start("--max-delete", "100"))
	s.waitSynced()
	m, err := mutate.New(master, uint64(number(t, "GEOREP_SEED", 1)), mutate.Options{Weights: map[string]int{
		"create": 30, "mkdir": 3, "write": 5, "append": 10, "save": 10, "unlink": 20, "rename": 10, "move": 10}})
	if err != nil {
		t.Fatal(err)
	}
	parked := func() (names []string) {
		list, _ := os.ReadDir(filepath.Join(slave, ".georep", "parked"))
		for _, e := range list {
			names = append(names, e.Name())
		}
		return names
	}
	var first []string // what lies there early on
	for deadline := time.Now().Add(patience); ; {
		if err := m.Run(t.Context(), 50, 0); err != nil {
			t.Fatalf("%v\n%s", err, m)
		}
		now := parked()
		pause(t, time.Millisecond)
		if len(first) == 0 && len(now) >= 20 {
			first = now
		}
		if len(first) > 0 && !slices.ContainsFunc(first, func(name string) bool { return slices.Contains(now, name) }) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d are parked, of %d that were early on some still: %+v", len(now), len(first), s.status())
		}
	}
	s.converge(m)
}

// soak runs the load, and looks at the processes a hundred times. It takes a breath now and then: hard links in directories
// that are renamed all the time keep the slave from being in step, and what is removed stays parked until it is.
func (s *session) soak(m *mutate.Mutator, duration time.Duration) (samples []sample) {
	s.t.Helper()
	begun, breath := time.Now(), soakBreath
	for next := begun; time.Since(begun) < duration; {
		if m.Steps() >= breath {
			now := time.Now()
			s.waitStatus("in step", func(st status.Status) bool { return st.LastSynced.After(now) })
			breath = m.Steps() + soakBreath
		}
		if err := m.Run(s.t.Context(), 100, time.Millisecond); err != nil {
			s.t.Fatalf("%v\n%s", err, m)
		}
		if time.Now().After(next) {
			samples = append(samples, s.sampled())
			next = next.Add(duration / 100)
		}
	}
	return append(samples, s.sampled())
}

// settleFiles waits until no process has more open than when the session had nothing to do yet, but for what is kept open
// for good.
func (s *session) settleFiles(idle sample) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; pause(s.t, 50*time.Millisecond) {
		now, most := s.sampled(), 0
		for name, u := range now {
			if name != "marker" { // it keeps the directories of the latest changes open, 512 at most
				most = max(most, u.files-idle[name].files)
			}
		}
		if most <= soakFiles && len(now) == len(idle) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("descriptors: %v, were %v", now, idle)
		}
	}
}

// level compares the medians of the second quarter and of the last.
func level(t *testing.T, samples []sample) {
	t.Helper()
	n := len(samples)
	for name := range samples[n-1] {
		before, after := median(samples[n/4:n/2], name), median(samples[3*n/4:], name)
		t.Logf("%s: %d KiB in the second quarter, %d KiB in the last", name, before.memory, after.memory)
		if after.memory > before.memory+before.memory/10+soakMemory {
			t.Errorf("the %s grew from %d to %d KiB", name, before.memory, after.memory)
		}
		if after.files > before.files+soakFiles && name != "marker" {
			t.Errorf("the %s had %d descriptors open, then %d", name, before.files, after.files)
		}
	}
}

func median(samples []sample, name string) usage {
	var memory, files []int
	for _, s := range samples {
		if u, ok := s[name]; ok {
			memory, files = append(memory, u.memory), append(files, u.files)
		}
	}
	slices.Sort(memory)
	slices.Sort(files)
	if len(memory) == 0 {
		return usage{}
	}
	return usage{memory[len(memory)/2], files[len(files)/2]}
}
