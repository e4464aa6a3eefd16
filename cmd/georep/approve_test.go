package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/status"
)

// TestApprove: what a sync was refused is shown, and goes with the next one, once; so it does while the session runs.
func TestApprove(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	args := []string{master, "file://" + slave}
	with := func(command string, more ...string) []string {
		return append(append([]string{command}, args...), more...)
	}
	for i := range 4 {
		if err := os.Mkdir(filepath.Join(master, fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 16 {
		p.write(filepath.Join(master, fmt.Sprint(i%4), fmt.Sprint("f", i)), "x")
	}
	p.run(with("approve")...).check(t, exitFailed, "no such session")
	p.ok(with("sync", "--max-delete", "0")...)
	p.run(with("approve", "--yes")...).check(t, exitFailed, "nothing is pending")
	remove := func(dir string) {
		t.Helper()
		if err := os.RemoveAll(filepath.Join(master, dir)); err != nil {
			t.Fatal(err)
		}
	}
	remove("0")
	p.run(with("sync")...).check(t, exitFailed, "georep approve")
	shows := func(texts ...string) {
		t.Helper()
		out := p.run("approve", master)
		out.check(t, exitFailed, "--yes")
		for _, text := range texts {
			if !strings.Contains(out.out, text) {
				t.Errorf("approve does not show %q: %s", text, out.out)
			}
		}
	}
	shows("5 entries would be removed", `"0" and all in it, 5 entries`, "max-delete is 0")
	var shown struct {
		Entries  int64
		Approved *string
		Items    []struct {
			Path      string
			Directory bool
		}
	}
	out := p.run(with("approve", "--json")...)
	if err := json.Unmarshal([]byte(out.out), &shown); err != nil || shown.Entries != 5 || shown.Approved != nil ||
		len(shown.Items) != 1 || shown.Items[0].Path != "0" || !shown.Items[0].Directory || strings.Contains(out.out, "keys") {
		t.Errorf("%v: %s", err, out.out)
	}
	p.run(with("approve", "--yes")...).check(t, exitDone, "approved", "next start or sync")
	remove("1")
	p.run(with("sync")...).check(t, exitFailed, "georep approve") // of one of them nobody was told
	shows("10 entries would be removed", `"0" and all in it`, `"1" and all in it`)
	if _, err := os.Stat(filepath.Join(slave, "1")); err != nil {
		t.Error(err)
	}
	p.run("approve", master, "--yes").check(t, exitDone, "next start or sync")
	p.run(with("sync")...).check(t, exitDone, "2 purges", "in step")
	p.run("approve", master).check(t, exitFailed, "nothing is pending")
	remove("2")
	t.Cleanup(func() { p.run(with("stop")...) })
	p.ok(with("start")...)
	p.waitStatus(func(st status.Status) bool {
		return st.State == status.Faulty && strings.Contains(st.Reason, "approve")
	})
	p.run("approve", master, "--yes").check(t, exitDone, "next crawl")
	p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	p.run(with("sync")...).check(t, exitDone, "in step")
	if _, err := os.Stat(filepath.Join(slave, "2")); err == nil {
		t.Error("what was approved while the session ran is there")
	}
	p.run("approve", master).check(t, exitFailed, "nothing is pending")
	p.ok(with("stop")...)
}
