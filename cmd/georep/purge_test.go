package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPurgeMetadata: both trees are as if georep had never been there, and only once somebody has agreed.
func TestPurgeMetadata(t *testing.T) {
	p := build(t, 0)
	master, slave := p.mkdir("master"), p.mkdir("slave")
	p.write(filepath.Join(master, "file"), "text")
	if err := os.Mkdir(filepath.Join(master, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := "file://" + slave
	p.ok("sync", master, spec)
	before := marked(t, master) + marked(t, slave)
	if before < 4 {
		t.Fatalf("%d entries are marked", before)
	}
	p.run("delete", master, spec, "--purge-metadata").check(t, exitFailed, "--yes")
	if n := marked(t, master) + marked(t, slave); n != before {
		t.Errorf("%d marks of %d are left, though nobody agreed", n, before)
	}
	p.run("volume", "purge", master, "--yes").check(t, exitFailed, "is replicated to")
	p.run("delete", master, spec, "--purge-metadata", "--yes").check(t, exitDone, "the marks of 3 entries are gone")
	if n := marked(t, master) + marked(t, slave); n != 0 {
		t.Errorf("%d entries are marked still", n)
	}
	if _, err := os.Stat(filepath.Join(slave, ".georep")); !os.IsNotExist(err) {
		t.Errorf(".georep: %v", err)
	}
	if text, err := os.ReadFile(filepath.Join(slave, "file")); string(text) != "text" {
		t.Errorf("the file: %q, %v", text, err)
	}
	p.run("volume", "purge", filepath.Join(p.dir, "none"), "--yes").check(t, exitFailed, "no such file")
	p.run("volume", "purge", slave, "--yes").check(t, exitDone, "the marks of 0 entries")
}

// TestPurgeLeavesWhatOthersNeed: a tree in which, or around which, something is used keeps what georep has there, and so does a master that
// is a slave as well.
func TestPurgeLeavesWhatOthersNeed(t *testing.T) {
	p := build(t, 0)
	all := p.mkdir("all")
	a, b, c := p.mkdir("all/a"), p.mkdir("all/b"), p.mkdir("all/c")
	p.write(filepath.Join(a, "file"), "text")
	p.ok("sync", a, "file://"+b)
	p.ok("sync", b, "file://"+c)
	before := marked(t, a) + marked(t, b)
	for _, path := range []string{a, b, c, all} {
		p.run("volume", "purge", path, "--yes").check(t, exitFailed, "is replicated to")
	}
	p.run("delete", b, "file://"+c, "--purge-metadata", "--yes").check(t, exitDone, "it is a slave as well")
	if n := marked(t, a) + marked(t, b); n != before {
		t.Errorf("%d of %d marks are left of a session that is still there", n, before)
	}
	if n := marked(t, c); n != 0 {
		t.Errorf("%d entries of its slave are marked still", n)
	}
	p.ok("sync", a, "file://"+b)

	other := p.mkdir("other")
	mine := filepath.Join(p.mkdir("other/.georep"), "file")
	p.write(mine, "mine")
	p.run("volume", "purge", other, "--yes").check(t, exitFailed, "not georep's")
	if _, err := os.Stat(mine); err != nil {
		t.Error(err)
	}
}

// TestPurgeByAnOrdinaryUser does not say that marks are gone which it cannot see.
func TestPurgeByAnOrdinaryUser(t *testing.T) {
	p := build(t, nobody)
	dir := p.mkdir("copy")
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lsetxattr(dir, "trusted.glusterfs.00000000-0000-0000-0000-000000000001.xtime", []byte("12345678"), 0); err != nil {
		t.Fatal(err)
	}
	p.run("volume", "purge", dir, "--yes").check(t, exitDone, "only root sees")
}

// marked counts the entries with one of georep's xattrs.
func marked(t *testing.T, top string) (n int) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		buf := make([]byte, 4096)
		size, err := unix.Llistxattr(path, buf)
		if err == nil && strings.Contains(string(buf[:size]), ".glusterfs.") {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
