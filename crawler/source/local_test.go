package source

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// TestBare: an entry counts as one without xattrs only where that was seen, and where it cannot have changed between the
// two looks at it. The guess whether the next one is marked changes what is asked, never what is found.
func TestBare(t *testing.T) {
	path := t.TempDir()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"bare", "marked", "other", "touched"} {
		ok(os.WriteFile(filepath.Join(path, name), nil, 0o644))
	}
	root, err := beneath.OpenRoot(path, true)
	ok(err)
	defer root.Close()
	names := xtime.NamesFor(xtime.Trusted, xtime.UUID{1})
	ok(root.SetXtime("marked", &names, 77<<32))
	ok(root.Setxattr("other", "user.a", nil))
	for calm := false; !calm; {
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
		st, err := root.Stat("other")
		ok(err)
		calm = quiet(&st)
	}
	ok(os.Chmod(filepath.Join(path, "touched"), 0o600))
	st, err := root.Stat("")
	ok(err)
	m := &Local{root: root, names: names, mark: 5 << 32, mount: st.MountID}
	for _, guess := range []bool{false, true} {
		r := reader{m: m, dir: root, unmarked: guess}
		for _, c := range []struct {
			name         string
			bare, marked bool
		}{{"touched", false, false}, {"bare", true, false}, {"other", false, false}, {"marked", false, true},
			{"marked", false, true}, {"bare", false, false}, {"bare", true, false}, {"touched", false, false}} {
			guessed := r.unmarked
			e, err := r.Entry(c.name)
			ok(err)
			if e.Bare != (c.bare && guessed) || (e.Record.Xtime == 77<<32) != c.marked || r.unmarked == c.marked {
				t.Errorf("%s, guessed unmarked %v: %+v, unmarked %v", c.name, guessed, e, r.unmarked)
			}
		}
	}
}
