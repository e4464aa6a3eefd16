package crawler_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// claims are the books of a schedule: what the master had after each operation, and from which xtime on that is marked.
type claims struct {
	states []state
	covers []xtime.Time // 0: not yet
	did    []string
	bySize bool                // the slave knows a file by its size and time
	linked map[xtime.GFID]bool // inodes that have, or had, several names: no mark leads to all of them
}

// state is a tree: what each directory had under each name.
type state map[xtime.GFID]map[string]what

// nameOf is a name of an inode, the zero value if it has none.
func (s state) nameOf(g xtime.GFID) (at spot) {
	for dir, names := range s {
		for name, one := range names {
			if one.gfid == g && (at.name == "" || name < at.name) {
				at = spot{dir, name}
			}
		}
	}
	return at
}

// names counts those of an inode.
func (s state) names(g xtime.GFID) (n int) {
	for _, names := range s {
		for _, one := range names {
			if one.gfid == g {
				n++
			}
		}
	}
	return n
}

// what stands under a name. text is of a file.
type what struct {
	gfid xtime.GFID
	kind slave.Kind
	text string
}

func (x what) String() string { return fmt.Sprintf("%v %.8s %q", x.kind, x.gfid.String(), x.text) }

// note books what the master has after an operation.
func (b *claims) note(w *world, did string) {
	w.t.Helper()
	now := state{}
	b.read(w, w.root, now)
	b.states, b.covers, b.did = append(b.states, now), append(b.covers, 0), append(b.did, did)
}

func (b *claims) read(w *world, d *beneath.Dir, into state) {
	w.t.Helper()
	d, err := d.OpenDir("") // a listing of its own
	w.ok(err)
	defer d.Close()
	self, err := d.GFID("")
	w.ok(err)
	names := map[string]what{}
	into[self] = names
	w.ok(d.List(func(e beneath.Entry) error {
		st, err := d.Stat(e.Name)
		if err != nil {
			return err
		}
		one := what{kind: slave.KindOf(st.Mode)}
		if one.gfid, err = d.GFID(e.Name); err != nil {
			return err
		}
		if one.kind == slave.File {
			one.text = textAt(d, e.Name)
		}
		if one.kind != slave.Dir && st.Nlink > 1 {
			b.linked[one.gfid] = true
		}
		names[e.Name] = one
		return nil
	}))
	for name, one := range names {
		if one.kind == slave.Dir {
			sub, err := d.OpenDir(name)
			w.ok(err)
			b.read(w, sub, into)
			sub.Close()
		}
	}
}

// textAt is the first line of a file: each content has one of its own.
func textAt(d *beneath.Dir, name string) string {
	f, err := d.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	return firstLine(f)
}

func firstLine(f *os.File) string {
	buf := make([]byte, 64)
	n, _ := f.Read(buf)
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	return line
}

// covered says that all operations before one are marked with x at most.
func (b *claims) covered(before int, x xtime.Time) {
	for i := range before {
		if b.covers[i] == 0 {
			b.covers[i] = x
		}
	}
}

// claimed is the newest state that a stamp claims; -1: none.
func (b *claims) claimed(stamp xtime.Time) int {
	for i := len(b.covers) - 1; i >= 0; i-- {
		if b.covers[i] != 0 && b.covers[i] <= stamp {
			return i
		}
	}
	return -1
}

// since lists what a directory has had under a name, from a state on; the zero value is nothing.
func (b *claims) since(i int, dir xtime.GFID, name string) (all []what) {
	for _, s := range b.states[i:] {
		if now := s[dir][name]; !slices.Contains(all, now) {
			all = append(all, now)
		}
	}
	return all
}

// has tells whether what the slave has is one of those. What came to the name since may be as it was where it came from: then
// its own record says so. By SFTP a record counts where size and time agree: an inode that got another time through one of its
// names has none under the others until these are looked at, and the slave has it on its list.
func (b *claims) has(all []what, there what) bool {
	came := slices.ContainsFunc(all, func(x what) bool { return x.gfid != all[0].gfid })
	return slices.ContainsFunc(all, func(x what) bool {
		if b.bySize && there.gfid.IsZero() && b.linked[x.gfid] {
			return x.kind == there.kind && x.text == there.text
		}
		same := x.gfid == there.gfid && x.kind == there.kind
		return same && (x.text == there.text || came || b.linked[x.gfid])
	})
}

// lies holds every stamp on the slave against the books, and gives a line for each that claims what is not there. least is a
// state that the whole tree has to claim; -1: none.
func (b *claims) lies(w *world, tree slave.Tree, least int) (found []string) {
	w.t.Helper()
	type dir struct {
		path  string
		claim int
	}
	for todo := []dir{{"", least}}; len(todo) > 0; {
		queries := make([]slave.Query, len(todo))
		for i := range todo {
			queries[i].Path = todo[i].path
		}
		states, err := tree.Survey(w.t.Context(), queries)
		w.ok(err)
		level := todo
		todo = nil
		for i := range states {
			s, d := &states[i], level[i]
			w.ok(s.Err)
			if s.Record.Xtime > max(w.now, w.volume, xtime.FromTime(realTime())) {
				found = append(found, fmt.Sprintf("%q is stamped %v, the master is at %v", d.path, s.Record.Xtime, w.now))
			}
			d.claim = max(d.claim, b.claimed(s.Record.Xtime))
			there := map[string]what{}
			for _, e := range s.Entries {
				one := what{gfid: e.Record.GFID, kind: e.Kind}
				if e.Kind == slave.File {
					one.text = w.textThere(beneath.Join(d.path, e.Name))
				}
				there[e.Name] = one
			}
			bad, inherits := b.dir(d.claim, s.Record.GFID, there)
			for _, line := range bad {
				found = append(found, fmt.Sprintf("%q, stamped %v, claims state %d: %s", d.path, s.Record.Xtime, d.claim, line))
			}
			for name, one := range there {
				if one.kind != slave.Dir {
					continue
				}
				claim := -1
				if inherits[name] {
					claim = d.claim
				}
				todo = append(todo, dir{beneath.Join(d.path, name), claim})
			}
		}
	}
	return found
}

func (w *world) textThere(path string) string {
	f, err := os.Open(filepath.Join(w.slave, path))
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	return firstLine(f)
}

// dir compares one directory with what is claimed of it. inherits tells for which names the claim goes on below.
func (b *claims) dir(claim int, g xtime.GFID, there map[string]what) (bad []string, inherits map[string]bool) {
	if claim < 0 || b.states[claim][g] == nil {
		return nil, nil
	}
	inherits = map[string]bool{}
	names := map[string]bool{}
	for name := range b.states[claim][g] {
		names[name] = true
	}
	for name := range there {
		names[name] = true
	}
	for name := range names {
		all := b.since(claim, g, name)
		now, is := there[name]
		inherits[name] = len(all) == 1
		if !is && len(all) > 1 {
			continue // what was there has left, and what comes is on its way
		}
		if !b.has(all, now) {
			bad = append(bad, fmt.Sprintf("%q is %v, should be one of %v", name, now, all))
		}
	}
	return bad, inherits
}
