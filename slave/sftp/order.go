package sftp

import (
	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/apply"
)

// order knows which operations of a batch have to wait for which: those about the same path, about
// one above or below it, and about the same inode. All others may be done in any order.
type order struct {
	at    map[string]*item   // the last about a path or inode
	below map[string][]*item // those about paths below, since then
}

// newOrder is for one batch, by one goroutine.
func newOrder() *order { return &order{at: map[string]*item{}, below: map[string][]*item{}} }

// add finds out what an operation has to wait for among those that were added before. A finish, and
// the making of a directory, concern their path alone.
func (o *order) add(it *item) {
	op := it.op
	o.path(it, op.Path)
	if op.Kind == slave.OpLink && op.From != "" {
		o.path(it, op.From)
	}
	g := apply.Inode(op)
	if g.IsZero() || op.Kind == slave.OpFinish || op.Kind == slave.OpMkdir {
		return
	}
	// A path has no NUL, so GFIDs and paths share the map.
	o.put(it, "\x00"+string(g[:]))
}

// put waits for the last about the key, and takes its place.
func (o *order) put(it *item, key string) {
	if last := o.at[key]; last != nil && last != it {
		it.after = append(it.after, last)
	}
	o.at[key] = it
}

// path waits for the last about the path itself, for those below it since, and for the last about each directory
// above.
func (o *order) path(it *item, path string) {
	o.put(it, path)
	for _, b := range o.below[path] {
		if b != it {
			it.after = append(it.after, b)
		}
	}
	delete(o.below, path)
	for dir := path; dir != ""; {
		dir, _ = beneath.Split(dir)
		if last := o.at[dir]; last != nil && last != it {
			it.after = append(it.after, last)
		}
		o.below[dir] = append(o.below[dir], it)
	}
}
