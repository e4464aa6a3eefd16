package monitor

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"georep/monitor/report"
	"georep/status"
	"georep/volume"
)

// TestCheckpoints: one is complete once the slave has everything, is told once, and stays so for the next monitor.
func TestCheckpoints(t *testing.T) {
	b := newBench(t)
	start := time.Now().Round(0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	for i, name := range []string{"a", "b", "b"} {
		if err := b.store.SetCheckpoint("data", testSlave, name, at(10*i)); err != nil {
			t.Fatal(err)
		}
	}
	files := b.store.Files("data", testSlave)
	c := checkpoints{files: files, log: zerolog.Nop()}
	look := func(now, synced, hidden int, want string) {
		t.Helper()
		st := status.Status{LastSynced: status.Time{Time: at(synced)}}
		if hidden >= 0 {
			st.HiddenAt = status.Time{Time: at(hidden)}
		}
		got := ""
		for _, one := range c.look(at(now), &st) {
			got += one.Name
		}
		c.save(at(now))
		if got != want {
			t.Errorf("at %d: %q is complete, want %q", now, got, want)
		}
	}
	state := func() (text string) {
		list, err := files.Checkpoints()
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			text += fmt.Sprintf("%s %v %v;", one.Name, !one.Completed.IsZero(), one.Unseen)
		}
		return text
	}
	look(0, 0, -1, "") // at that very time something may have changed
	look(1, 1, -1, "a")
	look(2, 2, -1, "")
	look(19, 19, -1, "")
	c = checkpoints{files: files, log: zerolog.Nop()}
	look(20, 20, 20, "")
	look(22, 21, 22, "b")
	if got := state(); got != "a true false;b true true;" {
		t.Error(got)
	}
	c = checkpoints{files: files, log: zerolog.Nop()}
	look(23, 23, 22, "")
	if got := state(); got != "a true false;b true false;" {
		t.Error(got)
	}
	// The same name at another time is another one.
	if err := b.store.SetCheckpoint("data", testSlave, "a", at(30)); err != nil {
		t.Fatal(err)
	}
	look(29, 29, -1, "")
	// A disk that takes nothing: it is told once, and written when there is room.
	own := filepath.Join(files.Dir, "checkpoints.completed")
	if err := os.Rename(own, own+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(own, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	look(40, 40, -1, "a")
	if err := os.RemoveAll(own); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(own+".kept", own); err != nil {
		t.Fatal(err)
	}
	look(42, 42, -1, "")
	if got := state(); got != "b true false;a true false;" {
		t.Error(got)
	}
	for i := range volume.MaxCheckpoints - 2 {
		if err := b.store.SetCheckpoint("data", testSlave, fmt.Sprint(i), at(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.store.SetCheckpoint("data", testSlave, "more", at(0)); err == nil {
		t.Error("there is no bound")
	}
	if err := b.store.SetCheckpoint("data", testSlave, "a", at(50)); err != nil {
		t.Errorf("set again where there are as many as there may be: %v", err)
	}
}

// TestClockSetBack: what was in step by a clock that was set back since proves nothing by the new one: not now, and not once the
// clock has come up to it. And the slave is in step again as soon as its worker says so.
func TestClockSetBack(t *testing.T) {
	b := newBench(t)
	now := time.Now().Round(0)
	ahead := now.Add(time.Hour)
	if err := b.store.SetCheckpoint("data", testSlave, "a", now); err != nil {
		t.Fatal(err)
	}
	st := status.New("data", testSlave.String())
	st.LastSynced, st.Stime = status.Time{Time: ahead}, 7
	m := newMachine(st, defaultPace(), time.Minute, func() float64 { return 0 })
	m.objective = newObjective(time.Minute, now.Add(-24*time.Hour), &st)
	c := checkpoints{files: b.store.Files("data", testSlave), log: zerolog.Nop()}
	look := func(at time.Time, want int) {
		t.Helper()
		st := m.status(at)
		if done := c.look(at, &st); len(done) != want {
			t.Errorf("after %v %d checkpoints are complete, want %d", at.Sub(now), len(done), want)
		}
	}
	for _, ev := range []event{begin{}, spawned{7}, reported{Report: report.Report{Kind: report.Ready}},
		reported{Report: report.Report{Kind: report.KindProgress, Progress: &report.Progress{Stime: 7}}}} {
		m.handle(now, ev)
	}
	look(now.Add(time.Second), 0)
	if st := m.status(now.Add(time.Second)); st.Objective != status.ObjectiveMet {
		t.Errorf("a session that is in step is %q", st.Objective)
	}
	look(ahead.Add(time.Second), 0)
	synced := status.Time{Time: now.Add(5 * time.Second)}
	m.handle(now.Add(6*time.Second), reported{Report: report.Report{Kind: report.KindProgress, Progress: &report.Progress{Stime: 7, LastSynced: synced}}})
	if st := m.status(now.Add(6 * time.Second)); !st.LastSynced.Equal(synced.Time) {
		t.Errorf("LAST_SYNCED is %v, and the worker said %v", st.LastSynced, synced)
	}
	look(now.Add(6*time.Second), 1)
}

// TestOldSettingsProveNothing: a worker that ends because the settings have changed, such as what is left out, goes by the old ones to
// its end: that it is in step by these is not said.
func TestOldSettingsProveNothing(t *testing.T) {
	now := time.Now().Round(0)
	m := newMachine(status.New("data", testSlave.String()), defaultPace(), time.Minute, func() float64 { return 0 })
	synced := func(after time.Duration, stime uint64) event {
		return reported{Report: report.Report{Kind: report.KindProgress,
			Progress: &report.Progress{Stime: stime, LastSynced: status.Time{Time: now.Add(after)}}}}
	}
	says := func(want time.Duration) {
		t.Helper()
		if st := m.status(now.Add(time.Hour)); !st.LastSynced.Equal(now.Add(want)) {
			t.Errorf("LAST_SYNCED is %v later, want %v", st.LastSynced.Sub(now), want)
		}
	}
	ready := reported{Report: report.Report{Kind: report.Ready}}
	for _, ev := range []event{begin{}, spawned{7}, ready, synced(1, 7), reload{restart: true}, synced(2, 7), synced(3, 8)} {
		m.handle(now, ev)
	}
	says(1)
	for _, ev := range []event{exited{}, spawned{8}, ready, synced(4, 8)} {
		m.handle(now, ev)
	}
	says(4)
}
