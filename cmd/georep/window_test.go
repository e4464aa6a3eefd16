package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/status"
)

// TestWindow: outside of its windows a session marks and waits, says until when, and how far the slave is behind; a sync goes over
// that on demand.
func TestWindow(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	args := []string{master, "file://" + slave}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, args...), more...)
	}
	p.write(filepath.Join(master, "a"), "one")
	later := func(d time.Duration) string { return time.Now().Add(d).Format("15:04") }
	window := later(2*time.Hour) + "-" + later(3*time.Hour)
	t.Cleanup(func() { p.run(with("stop")...) })
	p.run(with("start", "--windows", window)...).check(t, exitDone, "waits for its window until", later(2*time.Hour))
	var st status.Status
	waits := func(s status.Status) bool { st = s; return s.State == status.Active && !s.WaitsUntil.IsZero() }
	p.waitStatus(waits)
	if !strings.Contains(st.Reason, "waits for its window until") || st.Crawl != status.NoCrawl || time.Until(st.WaitsUntil.Time) < time.Hour {
		t.Errorf("%+v", st)
	}
	p.run("status").check(t, exitDone, "until ")
	p.run("sync", master, "--now").check(t, exitFailed, "windows hold")
	if list, err := os.ReadDir(slave); err != nil || len(list) > 0 {
		t.Errorf("the slave has %v, %v", list, err)
	}
	p.ok(with("stop")...)
	p.run("sync", master, "--now").check(t, exitDone, "in step")
	p.sameText(master, slave, "a")
	p.ok(with("start")...)
	p.waitStatus(func(s status.Status) bool { return waits(s) && !s.LastSynced.IsZero() })
	p.write(filepath.Join(master, "a"), "two")
	p.waitStatus(func(s status.Status) bool { return waits(s) && s.LagSeconds > 0 })
	p.run(with("config", "--reset", "windows")...).check(t, exitDone)
	p.waitStatus(func(s status.Status) bool {
		return s.State == status.Active && s.WaitsUntil.IsZero() && s.Reason == "" && s.LagSeconds == 0 && s.LastSynced.After(st.LastSynced.Time)
	})
	p.sameText(master, slave, "a")
	p.ok(with("stop")...)
}
