package ledger

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/marker/xtime"
)

// TestLinksAreHeldToStamps: a file with several names that is older than its books say is found where the directory of the
// name claims the change, or the root does, and nowhere else.
func TestLinksAreHeldToStamps(t *testing.T) {
	top := fstest.Mount(t, fstest.Tmpfs, fstest.Options{})
	master, above := filepath.Join(top, "master"), filepath.Join(top, "slave")
	replica := filepath.Join(above, "books")
	names := xtime.NamesFor(xtime.Trusted, xtime.NewUUID())
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stamp := func(path string, x xtime.Time) {
		t.Helper()
		d, err := beneath.OpenRoot(path, false)
		ok(err)
		defer d.Close()
		ok(d.SetXtime("", &names, x))
	}
	ok(os.Mkdir(master, 0o755))
	l, err := New(master, 1)
	ok(err)
	root := l.nodes[topNode]
	ok(l.mkdir(root))
	sub := l.dirs()[1]
	ok(l.save(root))
	ok(l.link(root, sub))
	note := func(x xtime.Time) { l.Note(); l.Cover(time.Now(), x) }
	note(10)
	from, file := l.pick(root)
	to, _ := l.pick(sub)
	subDir := filepath.Base(l.path(sub))
	ok(os.MkdirAll(filepath.Join(replica, subDir), 0o755))
	at, other := filepath.Join(replica, from), filepath.Join(replica, subDir, to)
	ok(os.WriteFile(at, content(file.id, 1), 0o644))
	ok(os.Link(at, other))
	for path, id := range map[string]int{replica: topNode, filepath.Dir(other): sub.id} {
		for g, n := range l.gfids {
			if n == id {
				ok(unix.Setxattr(path, names.GFID, g[:], 0))
			}
		}
	}
	ok(l.rewrite(root))
	note(20)
	for _, c := range []struct {
		what              string
		above, root, sub  xtime.Time
		wrong, wrongOther bool
	}{
		{"nothing is claimed", 0, 0, 0, false, false},
		{"what was before", 10, 10, 10, false, false},
		{"where the change was not", 10, 10, 20, false, false},
		{"where the change was", 10, 20, 10, true, false},
		{"all", 20, 10, 10, true, true},
	} {
		stamp(above, c.above)
		stamp(replica, c.root)
		stamp(filepath.Dir(other), c.sub)
		r, err := l.Check(above, replica, &names)
		ok(err)
		all := strings.Join(r.Wrong, "\n") + "\n"
		if strings.Contains(all, at+",") != c.wrong || strings.Contains(all, other+",") != c.wrongOther {
			t.Errorf("%s: %q", c.what, r.Wrong)
		}
	}
}
