package doctor

import (
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/volume"
)

// TestMasterThatDoesNotAnswer: a master whose file system hangs, as on a dead NFS server, is named, and is no end of the examination.
func TestMasterThatDoesNotAnswer(t *testing.T) {
	dir := t.TempDir()
	fstest.MountSilent(t, dir)
	store, err := volume.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var found []Finding
	worst := make(chan Level, 1)
	go func() {
		worst <- Run(t.Context(), Options{Store: store, Volume: volume.Volume{Name: "data", Path: dir}, patience: 50 * time.Millisecond,
			Tell: func(f Finding) { found = append(found, f) }})
	}()
	select {
	case level := <-worst:
		last := found[len(found)-1]
		if level != Problem || last.Place != OfMaster || !strings.Contains(last.Found, dir) || !strings.Contains(last.Found, "has not answered") {
			t.Errorf("%v: %+v", level, found)
		}
	case <-time.After(time.Minute):
		t.Error("it hangs, too")
	}
}
