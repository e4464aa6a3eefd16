package ledger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

const attribute = "user.ledger"

// content is what version v of file id holds: up to some 100 KiB, and one in twenty beyond 1 MiB.
func content(id, v int) []byte {
	size := id*7919 + v*104729
	switch size % 20 {
	case 0:
		size = 1<<20 + size%300_000
	case 1, 2:
		size %= 100_000
	default:
		size %= 3000
	}
	b := fmt.Appendf(nil, "ledger %d %d %d\n", id, v, size)
	line := fmt.Appendf(nil, "%d.%d;", id, v)
	b = append(b, bytes.Repeat(line, size/len(line))...)
	return append(b, "end\n"...)
}

// parse tells of which file and version a content is, if it is one, whole.
func parse(b []byte) (id, v int, whole bool) {
	var size int
	if _, err := fmt.Sscanf(string(b[:min(len(b), 64)]), "ledger %d %d %d\n", &id, &v, &size); err != nil {
		return 0, 0, false
	}
	return id, v, bytes.Equal(b, content(id, v))
}

// Report is what a Check found.
type Report struct {
	// Wrong says, a line each, what a stamp claims and the replica lacks.
	Wrong []string
	// Claimed counts the directories that claim a noted state, Names the entries that were held to one.
	Claimed, Names int
}

// check is one Check.
type check struct {
	*Ledger
	names  *xtime.Names
	whole  int // the state that the stamp of the replica's root claims; -1 for none
	report Report
}

// Check compares the replica in the directory root, which nobody changes meanwhile, with the books. above is a directory
// above it, of the replica too, whose stamp is for all below: the replica's root.
func (l *Ledger) Check(above, root string, names *xtime.Names) (Report, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &check{Ledger: l, names: names}
	claim, err := c.claim(above)
	if err != nil {
		return Report{}, err
	}
	c.whole = claim
	if _, err := os.Lstat(root); err != nil {
		if claim >= 0 {
			c.wrong(root, claim, "is not there")
		}
		return c.report, nil
	}
	if id, err := c.dirAt(root); err != nil || id != topNode {
		return c.report, err // not the master's yet: no stamp can be on record for it
	}
	err = c.dir(l.nodes[topNode], root, claim)
	return c.report, err
}

func (c *check) wrong(path string, claim int, format string, args ...any) {
	n := &c.notes[claim]
	c.report.Wrong = append(c.report.Wrong, fmt.Sprintf("%s, of the state at %s: %s", path, n.xtime, fmt.Sprintf(format, args...)))
}

// claim tells which noted state the stamp of a directory claims; -1 for none.
func (c *check) claim(path string) (int, error) {
	d, err := beneath.OpenRoot(path, false)
	if err != nil {
		return -1, err
	}
	defer d.Close()
	stamp, err := d.Xtime("", c.names)
	if err != nil {
		return -1, err
	}
	for i := len(c.notes) - 1; i >= 0; i-- {
		if x := c.notes[i].xtime; x != 0 && x <= stamp {
			return i, nil
		}
	}
	return -1, nil
}

// dirAt tells which directory the replica has at path, by the GFID on record; 0 for one that has none or is not known.
func (c *check) dirAt(path string) (int, error) {
	d, err := beneath.OpenRoot(path, false)
	if err != nil {
		return 0, err
	}
	defer d.Close()
	gfid, err := d.RecordedGFID("", c.names)
	return c.gfids[gfid], err
}

// dir checks the directory n, which the replica has at path; claim is the state that one above it claims for it.
func (c *check) dir(n *node, path string, claim int) error {
	own, err := c.claim(path)
	if err != nil {
		return err
	}
	claim = max(claim, own)
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	found := map[string]os.DirEntry{}
	for _, e := range list {
		found[e.Name()] = e
	}
	if claim >= 0 {
		c.report.Claimed++
		for name := range c.notes[claim].names[n.id] {
			if found[name] == nil {
				found[name] = nil
			}
		}
	}
	for name, e := range found {
		if err := c.entry(n, name, e, filepath.Join(path, name), claim); err != nil {
			return err
		}
	}
	return nil
}

// entry checks one name; e is nil where the replica has nothing under it.
func (c *check) entry(dir *node, name string, e os.DirEntry, path string, claim int) error {
	var want int
	var since []int // what the name has led to since
	if claim >= 0 {
		want = c.notes[claim].names[dir.id][name]
		since = c.since(dir.id, name, claim)
		c.report.Names++
	}
	if e == nil {
		if !slices.Contains(since, 0) {
			c.wrong(path, claim, "is not there; %s", c.story(dir, name, want, claim))
		}
		return nil
	}
	if !e.IsDir() {
		if claim >= 0 {
			return c.file(dir, path, want, since, claim)
		}
		return nil
	}
	id, err := c.dirAt(path)
	if err != nil {
		return err
	}
	if claim >= 0 && id != want && !slices.Contains(since, id) {
		c.wrong(path, claim, "is directory %d, want %d or one of %d", id, want, since)
		return nil
	}
	if c.nodes[id] == nil {
		return nil
	}
	if id != want || len(since) > 0 {
		claim = -1
	}
	return c.dir(c.nodes[id], path, claim)
}

// story tells what the books have of a name that is missing, to find out why: what it leads to, when that came, where else it
// was, and how far the root's stamp reaches.
func (c *check) story(dir *node, name string, want, claim int) string {
	var b strings.Builder
	n := c.nodes[want]
	fmt.Fprintf(&b, "%d, several names: %v, version %d; the root claims state %d, this is %d of %d;", want, n.linked, n.version,
		c.whole, claim, len(c.notes))
	logged := c.notes[claim].logged
	for i, ch := range c.log {
		if ch.id == want || ch.dir == dir.id && ch.name == name {
			fmt.Fprintf(&b, " %d: %d/%s=%d", i-logged, ch.dir, ch.name, ch.id)
		}
	}
	return b.String()
}

// since lists what a name has led to since a state.
func (c *check) since(dir int, name string, claim int) (ids []int) {
	for _, ch := range c.log[c.notes[claim].logged:] {
		if ch.dir == dir && ch.name == name {
			ids = append(ids, ch.id)
		}
	}
	return ids
}

// file checks that the file at path, in dir, is want, or one that has had the name since, and its version not too old.
func (c *check) file(dir *node, path string, want int, since []int, claim int) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	id, version, whole := parse(b)
	if !whole {
		// Somebody wrote to it while it was read: then it has a later version.
		if !slices.ContainsFunc(append(since, want), func(id int) bool { return c.changed(id, claim) }) {
			c.wrong(path, claim, "is no whole version of %d, nor of %d: %d bytes, %.40q", want, since, len(b), b)
		}
		return nil
	}
	if id != want && !slices.Contains(since, id) {
		c.wrong(path, claim, "is file %d, want %d or one of %d", id, want, since)
		return nil
	}
	if len(since) > 0 {
		return nil // it may have come from elsewhere
	}
	least := c.least(dir, id, claim)
	if version < least.version {
		c.wrong(path, claim, "has version %d of file %d, want %d; several names: %v", version, id, least.version, c.nodes[id].linked)
	}
	var buf [16]byte
	n, _ := unix.Lgetxattr(path, attribute, buf[:])
	if attr, _ := strconv.Atoi(string(buf[:max(n, 0)])); attr < least.attr {
		c.wrong(path, claim, "has attribute %d of file %d, want %d", attr, id, least.attr)
	}
	return nil
}

// least is the state of a file that a name of it in dir must have at least.
func (c *check) least(dir *node, id, claim int) state {
	if !c.nodes[id].linked {
		return c.notes[claim].states[id]
	}
	// What was changed through a name elsewhere is marked there, and up to the root from there.
	here := c.notes[claim].through[id][dir.id]
	if c.whole < 0 {
		return here
	}
	all := c.notes[c.whole].states[id]
	return state{max(here.version, all.version), max(here.attr, all.attr)}
}

// changed tells whether the content of a file was written after a state, or the file made.
func (c *check) changed(id, claim int) bool {
	s, was := c.notes[claim].states[id]
	n := c.nodes[id]
	return n != nil && !n.dir && (!was || s.version < n.version)
}
