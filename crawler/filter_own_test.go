package crawler_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"georep/crawler"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/disk"
)

// TestFilterTakesBack: what was left alone on the slave, and changed there in its place, is the master's again once it is not left out
// any more. What is on record of it says nothing of that.
func TestFilterTakesBack(t *testing.T) {
	bothKinds(t, nil, []string{"d/x.conf", "d/y.conf", "d/z", "d/linked.conf"}, func(w *filtered) {
		w.ok(os.Link(w.at("d/linked.conf"), w.at("d/further.conf")))
		w.changed("d/linked.conf", "d/further.conf")
		w.agree()
		w.setFilter(&filter.Spec{Exclude: "*.conf"})
		w.agree()
		for path, text := range map[string]string{"d/x.conf": "the slave's own, of another size", "d/y.conf": "cOnTeNt of d/y.conf",
			"d/linked.conf": "the slave's own"} {
			w.ok(os.WriteFile(w.there(path), []byte(text), 0o644)) // the inode stays
			later := time.Now().Add(time.Minute)
			w.ok(os.Chtimes(w.there(path), later, later))
		}
		w.put("d/new")
		w.changed("d/new")
		w.agree()
		w.has("d/x.conf", "the slave's own, of another size")
		w.setFilter(nil)
		aside := w.aside()
		list := w.dry(aside, time.Time{}, true)
		w.ok(aside.Close())
		for _, name := range []string{"x", "y"} {
			path := "d/" + name + ".conf"
			if !toldOf(list, path) {
				t.Errorf("a dry run says nothing of %s: %+v", path, list)
			}
		}
		w.agree()
		w.has("d/x.conf", "content of d/x.conf")
		w.has("d/y.conf", "content of d/y.conf")
		w.has("d/further.conf", "content of d/linked.conf")
	})
}

func toldOf(list []crawler.Change, path string) bool {
	for _, c := range list {
		if c.Path == path {
			return true
		}
	}
	return false
}

// asideCounter is hashCounter for a slave that is only looked at.
type asideCounter struct {
	slave.Reader
	hashed *int
}

func (c *asideCounter) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	*c.hashed += len(paths)
	return c.Reader.Hash(ctx, paths)
}

// TestRemovalsReadNothing: to tell what would be removed no content is read, however much both sides have in common.
func TestRemovalsReadNothing(t *testing.T) {
	w := newMaster(t, t.TempDir(), t.TempDir())
	for _, path := range []string{"d/a", "d/b"} {
		w.write(path, "the same on both sides")
		w.ok(os.MkdirAll(w.there("d"), 0o755))
		w.ok(os.WriteFile(w.there(path), []byte("the same on both sides"), 0o644))
	}
	w.ok(os.WriteFile(w.there("own"), []byte("precious"), 0o644))
	hashed := 0
	aside, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test", DryRun: true, Force: true})
	w.ok(err)
	defer aside.Close()
	var removed []string
	sum, err := crawler.DryRun(t.Context(), crawler.Options{Root: w.root, Path: w.master, Names: w.names,
		VolumeMark: func() xtime.Time { return w.volume }},
		crawler.DryRunOptions{Slave: &asideCounter{aside, &hashed}, OnlyRemoved: true, Found: func(c crawler.Change) {
			if c.Do == crawler.Remove {
				removed = append(removed, c.Path)
			}
		}})
	w.ok(err)
	if strings.Join(removed, " ") != "own" || sum.Removed != 1 || hashed != 0 {
		t.Errorf("%q would be removed, %d in all; %d files were read", removed, sum.Removed, hashed)
	}
}
