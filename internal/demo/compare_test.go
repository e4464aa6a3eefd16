package demo

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twins are two equal trees.
func twins(t *testing.T) (master, slave string) {
	t.Helper()
	master, slave = t.TempDir(), t.TempDir()
	past := time.Unix(1_000_000_000, 5)
	for _, root := range []string{master, slave} {
		if err := fill(root); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"docs/drafts/old.txt", "docs/plan.txt", "photos/sea.raw", "run.sh", "empty", "queue",
			"docs/drafts", "docs", "photos"} {
			if err := os.Chtimes(filepath.Join(root, name), past, past); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(filepath.Join(root, "plan")); err != nil { // its time cannot be set from here
			t.Fatal(err)
		}
	}
	return master, slave
}

func TestCompareEqual(t *testing.T) {
	master, slave := twins(t)
	if err := os.MkdirAll(filepath.Join(slave, own, "staging"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n, err := compare(master, slave); err != nil || n != 10 {
		t.Errorf("%d entries, %v", n, err)
	}
}

func TestCompareFinds(t *testing.T) {
	past := time.Unix(1_000_000_000, 5)
	for what, change := range map[string]func(at func(string) string) error{
		"lacks":   func(at func(string) string) error { return os.Remove(at("empty")) },
		"has not": func(at func(string) string) error { return os.Mkdir(at("more"), 0o755) },
		"mode":    func(at func(string) string) error { return os.Chmod(at("empty"), 0o600) },
		"mtime":   func(at func(string) string) error { return os.Chtimes(at("empty"), past, past.Add(1)) },
		"size":    func(at func(string) string) error { return os.Truncate(at("photos/sea.raw"), 7) },
		"content": func(at func(string) string) error {
			return os.WriteFile(at("docs/plan.txt"), []byte("the plan!"), 0o644)
		},
		"kind": func(at func(string) string) error {
			return all(func() error { return os.Remove(at("queue")) }, func() error { return os.Mkdir(at("queue"), 0o600) })
		},
		"number of names": func(at func(string) string) error {
			return all(func() error { return os.Remove(at("docs/run-too.sh")) },
				func() error { return os.WriteFile(at("docs/run-too.sh"), []byte("#!/bin/sh\necho hello\n"), 0o755) },
				func() error { return os.Chtimes(at("docs/run-too.sh"), past, past) },
				func() error { return os.Chtimes(at("docs"), past, past) })
		},
	} {
		t.Run(what, func(t *testing.T) {
			master, slave := twins(t)
			if err := change(func(name string) string { return filepath.Join(slave, name) }); err != nil {
				t.Fatal(err)
			}
			if _, err := compare(master, slave); !errors.Is(err, errDiffers) || !strings.Contains(err.Error(), what) {
				t.Errorf("compare: %v", err)
			}
		})
	}
}

func TestSteps(t *testing.T) {
	root := t.TempDir()
	if err := fill(root); err != nil {
		t.Fatal(err)
	}
	for _, s := range steps() {
		before, err := read(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.change(root); err != nil {
			t.Errorf("%s: %v", s.text, err)
		}
		after, err := read(root)
		if err != nil {
			t.Fatal(err)
		}
		if len(before) == len(after) && before["docs/plan.txt"] == after["docs/plan.txt"] && after["pictures"].mode == 0 {
			t.Errorf("%s: nothing has changed", s.text)
		}
	}
}

func TestNoPlace(t *testing.T) {
	for _, dir := range []string{"/proc", filepath.Join(t.TempDir(), "missing")} {
		if p, err := findPlace(dir); err == nil || !strings.Contains(err.Error(), "--dir") {
			t.Errorf("a place in %s: %v, %v", dir, p, err)
		}
	}
}
