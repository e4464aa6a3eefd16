package crawler

import (
	"slices"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// This file is about entries of the master that something is mounted on. What is mounted is not the volume's, and what is
// beneath cannot be seen. So the slave keeps what it has under the name, as it is. The directory is stamped all the same, as if
// the slave had what lies there, so a crawl may pass over an entry only where the marker has written down that it is covered:
// then all of it is marked anew once it can be seen again.

// passOver leaves out, on both sides, what something is mounted on. A directory that the slave lacks is made there, so that
// a replica can be mounted on as the master is; it tells nothing of what is beneath.
func (w *crawl) passOver(n *node, d *directory, covered []beneath.Entry, state *slave.DirState) {
	known := w.c.opts.mounts()[n.path]
	for _, e := range covered {
		path := join(n.path, e.Name)
		if w.c.opts.Source.Mounts != nil && !known[e.Name] {
			w.hold(n)
		}
		w.c.saysCovered(path)
		at := slices.IndexFunc(state.Entries, func(s slave.EntryState) bool { return s.Name == e.Name })
		if at >= 0 {
			state.Entries = slices.Delete(state.Entries, at, at+1)
		} else if e.Type == unix.DT_DIR {
			w.send(n, task{op: slave.Op{Kind: slave.OpMkdir, Entry: slave.Dir, Path: path, In: n.entry.Record.GFID,
				Meta: slave.Meta{Mode: 0o700, UID: d.Stat.UID, GID: d.Stat.GID}}})
		}
	}
}

// saysCovered logs, once for each path, that something is not replicated.
func (c *Crawler) saysCovered(path string) {
	if _, said := c.covered.LoadOrStore(path, struct{}{}); !said {
		c.opts.Logger.Warn().Str("path", path).Msg("not replicated: another file system is mounted there")
	}
}
