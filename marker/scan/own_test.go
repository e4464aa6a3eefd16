package scan

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"georep/internal/beneath"
	"georep/marker/statefile"
)

// TestOwnMarksSurviveAStop: what is saved is read, and none of it that somebody may have written meanwhile.
func TestOwnMarksSurviveAStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own")
	old := time.Now().Add(-time.Hour)
	st := beneath.Stat{Dev: 1, Ino: 2, Ctime: beneath.Time{Sec: 100, Nsec: 7}, Mtime: beneath.Time{Sec: 50}}
	written := st
	written.Mtime.Sec++
	a, b := &OwnMarks{}, &OwnMarks{}
	a.Add(&st, &st, old)
	other := st
	other.Ino = 3
	a.Add(&other, &written, old) // Somebody wrote meanwhile.
	recent := st
	recent.Ino, recent.Mtime = 4, beneath.Time{Sec: old.Unix(), Nsec: uint32(old.Nanosecond())}
	a.Add(&recent, &recent, old) // Somebody may write within the same tick.
	if err := errors.Join(a.Save(statefile.FS{}, path, time.Unix(99, 0)), b.Load(statefile.FS{}, path)); err != nil {
		t.Fatal(err)
	}
	if !b.Has(&st) || b.Has(&other) || b.Has(&recent) {
		t.Errorf("own %v, written %v, recent %v", b.Has(&st), b.Has(&other), b.Has(&recent))
	}
	st.Ctime.Nsec++
	if b.Has(&st) {
		t.Error("a later change counts as our mark")
	}
}
