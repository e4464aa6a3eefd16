package gluster_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/crawler/source"
	"georep/crawler/source/gluster"
	harness "georep/integration/harness/gluster"
	"georep/internal/beneath"
)

// namesIn are how many names a pass sees in the root of the volume.
func namesIn(t *testing.T, s source.Source) (n int) {
	t.Helper()
	d, err := s.OpenDir("")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := s.Names(d, true, func(beneath.Entry) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBricks: what a mount shows while bricks are away. The volume is one for all, and each test leaves it whole.
func TestBricks(t *testing.T) {
	w := newWorld(t)
	const files = 40
	for i := range files {
		if err := os.WriteFile(filepath.Join(w.path, fmt.Sprintf("f%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w.marked(t, "", "f0")
	t.Run("one of a pair is down", func(t *testing.T) {
		s := w.begin(t, "", 0)
		w.volume.Kill(2)
		if err := s.Intact(); err != nil || namesIn(t, s) != files {
			t.Errorf("%d names, %v", namesIn(t, s), err)
		}
		w.volume.Restart()
		w.whole(t)
	})
	t.Run("a pair is down", func(t *testing.T) {
		s := w.begin(t, "", 0)
		if err := s.Intact(); err != nil || namesIn(t, s) != files {
			t.Fatalf("%d names, %v", namesIn(t, s), err)
		}
		w.volume.Kill(0)
		w.volume.Kill(1)
		w.sees(t, s, func(n int) bool { return n < files })
		err := s.Intact()
		if !errors.Is(err, source.ErrNotMaster) || !strings.Contains(err.Error(), harness.Host+":"+w.volume.Brick(0)) {
			t.Errorf("%v", err)
		}
		root, err := w.mount.Open("")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if _, err := w.mount.Opener(0)(&source.Config{Root: root, Path: w.mount.Path}); !errors.Is(err, source.ErrNotMaster) {
			t.Errorf("a pass that begins: %v", err)
		}
		w.volume.Restart()
		w.whole(t)
		w.sees(t, s, func(n int) bool { return n == files })
		if err := s.Intact(); !errors.Is(err, source.ErrNotMaster) {
			t.Errorf("it is whole again, and the pass that saw a part goes on: %v", err)
		}
		if again := w.begin(t, "", 0); again.Intact() != nil || namesIn(t, again) != files {
			t.Errorf("the next pass: %d names, %v", namesIn(t, again), again.Intact())
		}
	})
}

// sees waits until so many names are listed, as after the loss of a connection, which is not noticed at once.
func (w *world) sees(t *testing.T, s source.Source, right func(n int) bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !right(namesIn(t, s)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d names are listed", namesIn(t, s))
		}
	}
}

// whole waits until a pass can begin, with all bricks connected.
func (w *world) whole(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		clients, err := filepath.Glob(filepath.Join(w.mount.Path, ".meta/graphs/active", w.volume.Name+"-client-*/private"))
		up := 0
		for _, c := range clients {
			if text, err := os.ReadFile(c); err == nil && strings.Contains(string(text), "connected = 1") {
				up++
			}
		}
		if up == 4 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of 4 bricks are connected, %v", up, err)
		}
	}
}

// TestAttach: what cannot be a master is refused by name, with the command that helps; and what a stamp may say.
func TestAttach(t *testing.T) {
	w := newWorld(t)
	t.Run("stamps trail", func(t *testing.T) {
		if err := os.Mkdir(filepath.Join(w.path, "d"), 0o755); err != nil {
			t.Fatal(err)
		}
		w.marked(t, "", "d")
		native, trailing := w.begin(t, "", 0), w.begin(t, "", time.Hour)
		x, g, err := native.Head()
		if err != nil {
			t.Fatal(err)
		}
		early, g2, err := trailing.Head()
		if err != nil || g2 != g || early >= x || x.Time().Sub(early.Time()) > time.Hour {
			t.Errorf("%v of %v, %v; want up to an hour before %v of %v", early, g2, err, x, g)
		}
		root, err := trailing.OpenDir("")
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		entry, err := trailing.Entry("", root, "d")
		if err != nil || entry.Record.Xtime >= x {
			t.Errorf("a directory in it: %v, %v", entry.Record.Xtime, err)
		}
		below, err := trailing.Open("d", entry.Record.GFID)
		if err != nil {
			t.Fatal(err)
		}
		defer below.Dir.Close()
		if below.Xtime >= x {
			t.Errorf("opened: %v", below.Xtime)
		}
	})
	w.volume.Volume("unmarked")
	w.volume.Volume("sharded", "geo-replication.indexing on", "features.shard on")
	for name, want := range map[string]string{
		"unmarked": "gluster volume set unmarked geo-replication.indexing on",
		"sharded":  "it is sharded",
		"none":     "none",
	} {
		dir := t.TempDir()
		_, err := gluster.Attach(t.Context(), dir, name, harness.Host)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one line with %q", name, err, want)
		}
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Join(dir, "mnt"), &st); err != nil || st.Type == unix.FUSE_SUPER_MAGIC {
			t.Errorf("%s is mounted still: %v", name, err)
		}
	}
	t.Setenv("PATH", "")
	if _, err := gluster.Attach(t.Context(), t.TempDir(), "master", harness.Host); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("without the client: %v", err)
	}
}
