package filter

import (
	"cmp"
	"slices"
	"strings"
)

// Dir is the filter for the entries of one directory. Two directories with the same positions
// behave the same, wherever they lie; that is what Same compares.
type Dir struct {
	f      *Filter
	at     []position // of the rules with a path, the last rule first
	tagged bool       // it has a Tag
}

// position is how far into its path a rule has come: the segment that is to match next. A rule may
// be at several segments at once, since ** stands for any number of directories.
type position struct{ rule, seg int32 }

// compare orders by rule, the last first, since the last rule that matches decides.
func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(q.rule, p.rule), cmp.Compare(p.seg, q.seg))
}

// reach adds the positions of a rule that has come to seg: a deep one stands for no directory, too.
// "**" may stand for no directory, so the segment after it is reached at once.
func (r *rule) reach(to []position, rule, seg int32) []position {
	for {
		if p := (position{rule, seg}); !slices.Contains(to, p) {
			to = append(to, p)
		}
		if !r.path[seg].deep || int(seg) == len(r.path)-1 {
			return to
		}
		seg++
	}
}

// Excludes tells whether an entry of the directory is left out. The size counts for a file only: it
// is -1 for everything else. It costs a comparison for each rule without a slash, and for each of
// the others that can still match here.
func (d *Dir) Excludes(name string, isDir bool, size int64) bool {
	if d == nil {
		return false
	}
	f := d.f
	if d.tagged && name != Tag || f.larger > 0 && size > f.larger {
		return true
	}
	best := d.byName(name, isDir)
	for _, p := range d.at {
		if int(p.rule) <= best {
			break
		}
		r := &f.rules[p.rule]
		if int(p.seg) == len(r.path)-1 && (isDir || !r.dir) && r.path[p.seg].match(name) {
			best = int(p.rule)
			break
		}
	}
	return best >= 0 && !f.rules[best].include
}

// byName is the last of the rules without a path that matches; -1 where none does. They are tried
// in the order of the filter, the last first, so the first that matches decides among them.
func (d *Dir) byName(name string, isDir bool) int {
	for _, i := range d.f.names {
		if r := &d.f.rules[i]; (isDir || !r.dir) && r.name.match(name) {
			return i
		}
	}
	return -1
}

// Down is the filter for a directory in this one, without its Tag. Where no pattern has a slash all
// directories share one Dir, and nothing is allocated.
func (d *Dir) Down(name string) *Dir {
	if d == nil {
		return nil
	}
	if len(d.at) == 0 && !d.tagged {
		return d
	}
	out := &Dir{f: d.f}
	for _, p := range d.at {
		r := &d.f.rules[p.rule]
		switch s := &r.path[p.seg]; {
		case s.deep:
			out.at = r.reach(out.at, p.rule, p.seg)
		case int(p.seg) < len(r.path)-1 && s.match(name):
			out.at = r.reach(out.at, p.rule, p.seg+1)
		}
	}
	slices.SortFunc(out.at, position.compare)
	return out
}

// Walk is Down for each name of a path. A path of any length is walked in its names; nothing is
// looked up.
func (d *Dir) Walk(path string) *Dir {
	for more := path != ""; more && d != nil; {
		var name string
		name, path, more = strings.Cut(path, "/")
		d = d.Down(name)
	}
	return d
}

// Tagged is the filter for the directory, which has a Tag.
func (d *Dir) Tagged() *Dir { return &Dir{f: d.f, at: d.at, tagged: true} }

// Same tells whether two directories of one filter leave out the same, in them and below, but for their Tags.
func (d *Dir) Same(e *Dir) bool {
	return d == e || d != nil && e != nil && slices.Equal(d.at, e.at)
}
