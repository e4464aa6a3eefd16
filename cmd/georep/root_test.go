package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"georep/status"
)

// TestRootThatCannotBeUsed: why an ordinary user's master cannot be read, or stands no longer there, is said by the status
// and every command, with what to do; the session goes on by itself once that is over.
func TestRootThatCannotBeUsed(t *testing.T) {
	p := build(t, nobody)
	above, slave, other := p.mkdir("above"), p.mkdir("slave"), p.mkdir("other")
	master := filepath.Join(above, "master")
	if err := os.Mkdir(master, 0o755); err != nil {
		t.Fatal(err)
	}
	p.write(filepath.Join(master, "a"), "one")
	for _, dir := range []string{above, master, slave, other} {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	name := "master"
	p.ok("start", master, "file://"+slave, "--retry-max", "1s")
	t.Cleanup(func() { p.run("stop", name, "file://"+slave) })
	for _, c := range []struct {
		what     string
		do, undo func() error
		words    []string
	}{
		{"no x", chmod(master, 0o644), chmod(master, 0o755),
			[]string{"permission denied", "user 65534 may not enter " + master + " (mode 0644, owner 65534)", "chmod"}},
		{"no r", chmod(master, 0o311), chmod(master, 0o755), []string{"permission denied", "may not read " + master}},
		{"no x above", chmod(above, 0o600), chmod(above, 0o755), []string{"permission denied", "may not enter " + above + " ("}},
		{"gone", move(master, master+".away"), move(master+".away", master), []string{"no such file", "mount or restore it"}},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		said := func(where, text string) {
			for _, w := range c.words {
				if !strings.Contains(text, w) {
					t.Errorf("%s: %s says %q, not %q", c.what, where, text, w)
				}
			}
			if strings.Contains(text, "denied") && strings.Contains(text, "is not there") {
				t.Errorf("%s: %s says %q", c.what, where, text)
			}
		}
		p.waitStatus(func(st status.Status) bool {
			if st.State != status.Faulty {
				return false
			}
			said("status", st.Reason)
			return true
		})
		for _, args := range [][]string{{"sync", name, "file://" + slave}, {"verify", name, "file://" + slave}} {
			o := p.run(args...)
			o.check(t, exitFailed)
			said(strings.Join(args, " "), o.errors)
		}
		if c.what == "no x above" { // its path cannot even be resolved
			o := p.run("sync", master, "file://"+other)
			o.check(t, exitFailed)
			said("sync by path", o.errors)
		}
		if err := c.undo(); err != nil {
			t.Fatal(err)
		}
		p.waitStatus(func(st status.Status) bool { return st.State == status.Active })
	}
	// The slave's end says it in the same way.
	p.ok("stop", name, "file://"+slave)
	if err := os.Chmod(slave, 0o600); err != nil {
		t.Fatal(err)
	}
	p.run("start", name, "file://"+slave).check(t, exitFailed, "permission denied", "may not enter "+slave)
	if err := os.Chmod(slave, 0o755); err != nil {
		t.Fatal(err)
	}
}

func chmod(path string, mode os.FileMode) func() error {
	return func() error { return os.Chmod(path, mode) }
}

func move(from, to string) func() error { return func() error { return os.Rename(from, to) } }
