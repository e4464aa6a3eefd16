package crawler

import (
	"crypto/sha256"

	"georep/crawler/plan"
	"georep/slave"
)

// Bounds of one request for hashes, so that the slave answers within reasonable time.
const (
	hashFiles = 64
	hashBytes = 256 << 20
)

// compare asks the slave for the hashes of files that are probably right, sends metadata only where they agree, and the
// content where not.
func (w *crawl) compare(n *node, d *directory, items []plan.Item) {
	for len(items) > 0 && w.ctx.Err() == nil {
		k, bytes := 0, int64(0)
		for k < len(items) && k < hashFiles && (k == 0 || bytes+items[k].Entry.Stat.Size <= hashBytes) {
			bytes += items[k].Entry.Stat.Size
			k++
		}
		w.compareSome(n, d, items[:k])
		items = items[k:]
	}
}

func (w *crawl) compareSome(n *node, d *directory, items []plan.Item) {
	paths := make([]string, 0, len(items))
	for _, it := range items {
		paths = append(paths, join(n.path, it.Entry.Name))
	}
	theirs, err := w.c.opts.Tree.Hash(w.ctx, paths)
	if err != nil {
		w.cancel(err)
		return
	}
	for i, it := range items {
		was := ofItem(&it)
		it.How = plan.Replace
		if it.Entry.Kind == slave.File && sameContent(d, &it.Entry, &theirs[i]) {
			it.How = plan.Adopt
		}
		w.pending.done(was)
		w.pending.add(ofItem(&it))
		w.item(n, d, it)
	}
}

// sameContent tells whether the slave's digest is that of the master's file. What is written after it was read here gets a
// newer xtime than the one that was listed. Its ctime may move: a mark changes that, and a further name.
func sameContent(d *directory, e *plan.Entry, theirs *slave.HashResult) bool {
	if theirs.Err != nil || theirs.Size != e.Stat.Size {
		return false
	}
	f, err := d.dir.OpenQuietly(e.Name)
	if err != nil {
		return false
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, slave.MaxPiece)
	for {
		n, err := f.Read(buf)
		if err != nil {
			return false
		}
		if n == 0 {
			break
		}
		h.Write(buf[:n])
	}
	st, err := f.Stat()
	if err != nil || st.Ino != e.Stat.Ino || st.Size != e.Stat.Size || st.Mtime != e.Stat.Mtime {
		return false
	}
	return [slave.HashSize]byte(h.Sum(nil)) == theirs.Sum
}
