package mutate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/asuser"
	"georep/integration/harness/compare"
	"georep/integration/harness/fstest"
	"georep/integration/harness/internal/at"
)

func run(t *testing.T, root string, seed uint64, steps int, opts Options) *Mutator {
	t.Helper()
	m, err := New(root, seed, opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context(), steps, 0); err != nil {
		t.Fatalf("%v\n%s", err, m)
	}
	return m
}

func subdir(t *testing.T, parent, name string) string {
	t.Helper()
	path := filepath.Join(parent, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSameSeedGivesTheSameTree(t *testing.T) {
	fstest.Each(t, func(t *testing.T, dir string) {
		for _, profile := range []string{"default", "links", "renames", "exchange"} {
			t.Run(profile, func(t *testing.T) {
				base := subdir(t, dir, profile)
				a, b := subdir(t, base, "a"), subdir(t, base, "b")
				opts := Options{Profile: profile, FixedTimes: true}
				first, second := run(t, a, 7, 400, opts), run(t, b, 7, 400, opts)
				compare.MustEqual(t, a, b, compare.Options{Holes: true, HoleSlack: 1})
				if shown := strings.ReplaceAll(first.String(), a, b); shown != second.String() {
					t.Errorf("histories differ:\n%s\n%s", first, second)
				}
			})
		}
	})
}

func TestOtherSeedGivesAnotherTree(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	run(t, a, 1, 100, Options{})
	run(t, b, 2, 100, Options{})
	if err := compare.Equal(a, b, compare.Options{IgnoreMtime: true}); !errors.Is(err, compare.ErrDiffer) {
		t.Errorf("two seeds made the same tree: %v", err)
	}
}

func TestEveryOperationHappens(t *testing.T) {
	m, err := New(fstest.Mount(t, fstest.Tmpfs, fstest.Options{}), 3, Options{})
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for range 4000 {
		did, err := m.Step()
		if err != nil {
			t.Fatalf("%v\n%s", err, m)
		}
		if !strings.Contains(did, "refused") {
			count[strings.Fields(did)[1]]++
		}
	}
	for _, name := range Operations() {
		if count[name] < 5 {
			t.Errorf("%s was done %d times in 4,000", name, count[name])
		}
	}
	checkModel(t, m)
}

func TestOverlayToo(t *testing.T) {
	checkModel(t, run(t, fstest.Mount(t, fstest.Overlay, fstest.Options{}), 5, 1500, Options{}))
}

// checkModel wants on the disk exactly what the model says: names, kinds, sizes and which names share an inode.
func checkModel(t *testing.T, m *Mutator) {
	t.Helper()
	fd, err := at.OpenRoot(m.model.top)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	c := modelCheck{t: t, m: m, inodes: map[uint64]*inode{}, seen: map[*inode]uint64{}}
	c.directory(m.model.root, fd)
	var bytes int64
	for ino := range c.seen {
		bytes += ino.size
	}
	if bytes != m.model.bytes {
		t.Errorf("the model counts %d bytes, its files have %d", m.model.bytes, bytes)
	}
	if c.nodes != len(m.model.all) {
		t.Errorf("the model lists %d names, its tree has %d", len(m.model.all), c.nodes)
	}
}

type modelCheck struct {
	t      *testing.T
	m      *Mutator
	inodes map[uint64]*inode
	seen   map[*inode]uint64
	nodes  int
}

func (c *modelCheck) directory(n *node, fd int) {
	names, err := at.Names(fd)
	if err != nil {
		c.t.Fatal(err)
	}
	if want := slices.Sorted(maps.Keys(n.kids)); !slices.Equal(names, want) {
		c.t.Fatalf("%s holds %q, the model says %q\n%s", c.m.quote(n), names, want, c.m)
	}
	for _, name := range names {
		c.nodes++
		c.entry(n.kids[name], fd)
	}
}

func (c *modelCheck) entry(n *node, fd int) {
	st, err := at.Stat(fd, n.name)
	if err != nil {
		c.t.Fatal(err)
	}
	kinds := map[uint32]kind{unix.S_IFREG: file, unix.S_IFDIR: dir, unix.S_IFLNK: symlink}
	want, plain := kinds[st.Mode&unix.S_IFMT]
	if !plain {
		want = special
	}
	if n.ino.kind != want || want == file && n.ino.size != st.Size {
		c.t.Errorf("%s is of kind %d with %d bytes, the model says %d with %d", c.m.quote(n), want, st.Size, n.ino.kind, n.ino.size)
	}
	if want == dir {
		sub, err := at.OpenDir(fd, n.name)
		if err != nil {
			c.t.Fatal(err)
		}
		c.directory(n, sub)
		unix.Close(sub)
		return
	}
	if known, ok := c.inodes[st.Ino]; ok && known != n.ino {
		c.t.Errorf("%s shares an inode that the model does not know of", c.m.quote(n))
	}
	if ino, ok := c.seen[n.ino]; ok && ino != st.Ino {
		c.t.Errorf("%s should share inode %d", c.m.quote(n), ino)
	}
	if int(st.Nlink) != n.ino.names {
		c.t.Errorf("%s has %d names, the model says %d", c.m.quote(n), st.Nlink, n.ino.names)
	}
	c.inodes[st.Ino], c.seen[n.ino] = n.ino, st.Ino
}

func TestLimitsHold(t *testing.T) {
	opts := Options{MaxEntries: 40, MaxBytes: 300_000, MaxFile: 100_000, MaxDepth: 3, OddNames: -1}
	m, err := New(fstest.Mount(t, fstest.Tmpfs, fstest.Options{}), 11, opts)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for range 3000 {
		if _, err := m.Step(); err != nil {
			t.Fatalf("%v\n%s", err, m)
		}
		if n := len(m.model.all); n > opts.MaxEntries || m.model.bytes > opts.MaxBytes {
			t.Fatalf("%d entries, %d bytes\n%s", n, m.model.bytes, m)
		}
		for _, n := range m.model.all {
			if n.depth() > opts.MaxDepth || n.ino.size > opts.MaxFile {
				t.Fatalf("%s: depth %d, %d bytes\n%s", m.quote(n), n.depth(), n.ino.size, m)
			}
		}
		most = max(most, len(m.model.all))
	}
	if most < opts.MaxEntries/2 {
		t.Errorf("never more than %d entries", most)
	}
	checkModel(t, m)
}

func TestWeightsChooseOperations(t *testing.T) {
	m := run(t, t.TempDir(), 1, 100, Options{Weights: map[string]int{"mkdir": 1, "rmdir": 1}, History: 100})
	for _, did := range m.past {
		if op := strings.Fields(did)[1]; op != "mkdir" && op != "rmdir" {
			t.Errorf("did %s", did)
		}
	}
}

func TestRefusesNonsense(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(full+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		root string
		opts Options
	}{
		{full, Options{}},
		{full + "/absent", Options{}},
		{t.TempDir(), Options{Profile: "no such"}},
		{t.TempDir(), Options{Weights: map[string]int{"no such": 1}}},
		{t.TempDir(), Options{Weights: map[string]int{}}},
		{t.TempDir(), Options{Weights: map[string]int{"chown": 1}, Unprivileged: true}},
	} {
		if _, err := New(c.root, 1, c.opts); err == nil {
			t.Errorf("New accepted %+v", c.opts)
		}
	}
}

func TestIdle(t *testing.T) {
	m, err := New(t.TempDir(), 1, Options{Weights: map[string]int{"unlink": 1}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Step(); !errors.Is(err, ErrIdle) {
		t.Errorf("Step on an empty tree: %v", err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m, err := New(t.TempDir(), 1, Options{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, 0, 1) }()
	for m.Steps() < 20 {
		_ = m.String()
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run without a number of steps: %v", err)
	}
	if err := m.Run(ctx, 5, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Run of 5 steps, cancelled: %v", err)
	}
}

func TestFailureNamesSeedAndStep(t *testing.T) {
	root := t.TempDir()
	m := run(t, root, 42, 3, Options{Weights: map[string]int{"mkdir": 1}})
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	_, err := m.Step()
	if err == nil || !strings.Contains(err.Error(), "seed 42, step 4: mkdir") {
		t.Errorf("got %v", err)
	}
	if !strings.Contains(m.String(), "4: mkdir") {
		t.Errorf("the history lacks the failed step:\n%s", m)
	}
}

func TestUnprivileged(t *testing.T) {
	if root, here := asuser.Again(t); here {
		checkModel(t, run(t, root, 9, 2000, Options{Unprivileged: true}))
	}
}

func ExampleNew() {
	root, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(root)
	m, err := New(root, 1, Options{Weights: map[string]int{"mkdir": 1}, OddNames: -1})
	if err != nil {
		fmt.Println(err)
		return
	}
	did, err := m.Step()
	fmt.Println(strings.ReplaceAll(did, root, "ROOT"), err)
	// Output: 1: mkdir "ROOT/k1" <nil>
}
