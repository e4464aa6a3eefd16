package demo

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// fill makes a small tree of different kinds.
func fill(root string) error {
	at := func(name string) string { return filepath.Join(root, name) }
	return all(
		func() error { return os.MkdirAll(at("docs/drafts"), 0o755) },
		func() error { return os.Mkdir(at("photos"), 0o750) },
		func() error { return os.WriteFile(at("docs/plan.txt"), []byte("the plan\n"), 0o644) },
		func() error { return os.WriteFile(at("docs/drafts/old.txt"), []byte("an old draft\n"), 0o600) },
		func() error { return os.WriteFile(at("photos/sea.raw"), bytes.Repeat([]byte("waves "), 50_000), 0o640) },
		func() error { return os.WriteFile(at("run.sh"), []byte("#!/bin/sh\necho hello\n"), 0o755) },
		func() error { return os.WriteFile(at("empty"), nil, 0o644) },
		func() error { return os.Symlink("docs/plan.txt", at("plan")) },
		func() error { return os.Link(at("run.sh"), at("docs/run-too.sh")) },
		func() error { return unix.Mkfifo(at("queue"), 0o600) },
	)
}

// all does one thing after the other until one fails.
func all(things ...func() error) error {
	for _, do := range things {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// step is one change of the master.
type step struct {
	// text is shown before the change is made.
	text   string
	change func(root string) error
}

// steps are carried out in this order, and build on each other.
func steps() []step {
	return []step{
		{"Edit docs/plan.txt: the marker stamps the file and every directory above it; only those are looked at.",
			func(root string) error {
				text := strings.Repeat("a better plan\n", 100)
				return os.WriteFile(filepath.Join(root, "docs/plan.txt"), []byte(text), 0o644)
			}},
		{"Rename photos to pictures: the slave has the new name, and the old one is gone.",
			func(root string) error {
				return os.Rename(filepath.Join(root, "photos"), filepath.Join(root, "pictures"))
			}},
		{"A hard link: one inode stays one inode, with all its names.",
			func(root string) error {
				return os.Link(filepath.Join(root, "pictures/sea.raw"), filepath.Join(root, "docs/sea.raw"))
			}},
		{"Delete docs/drafts: the slave parks what is stale before it removes it.",
			func(root string) error { return os.RemoveAll(filepath.Join(root, "docs/drafts")) }},
		{"Make a directory with a file in it.",
			func(root string) error {
				return all(func() error { return os.Mkdir(filepath.Join(root, "music"), 0o755) },
					func() error { return os.WriteFile(filepath.Join(root, "music/tune"), []byte("la la\n"), 0o644) })
			}},
		{"A symbolic link that leads nowhere is replicated as it is.",
			func(root string) error { return os.Symlink("nowhere/at/all", filepath.Join(root, "broken")) }},
	}
}
