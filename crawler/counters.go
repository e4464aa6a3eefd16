package crawler

import (
	"sync/atomic"

	"georep/crawler/plan"
	"georep/internal/beneath"
	"georep/slave"
)

// Counters count what a session did since its worker started. They may be read at any time, from any goroutine.
type Counters struct {
	Crawls   atomic.Int64 // from the root, or of what hints named
	Surveyed atomic.Int64 // directories asked of the slave
	Visited  atomic.Int64 // directories listed on the master
	Hinted   atomic.Int64 // directories of which only what hints named was looked at
	Searches atomic.Int64 // of the whole master, for names of inodes
	Entries  atomic.Int64 // entries looked at on the master
	Files    atomic.Int64 // files shipped
	Bytes    atomic.Int64 // of content read for them
	Reused   atomic.Int64 // of those, found in older contents on the slave
	Adopted  atomic.Int64 // entries whose content was already there
	Links    atomic.Int64
	Renames  atomic.Int64 // entries brought back from where they were parked
	Purges   atomic.Int64
	// What is known to differ and is not applied yet, on its way or not: entries, directories among them that are being
	// worked on; files whose content is to be sent, and how much that is; entries whose attributes alone are to be set.
	// A file of which only the slave knows whether it differs counts as an entry. See also Hints.Names.
	PendingEntries atomic.Int64
	PendingFiles   atomic.Int64
	PendingBytes   atomic.Int64
	PendingMeta    atomic.Int64
	// What a crawl has dealt with: entries that it found in step or that the slave took over, sent or not, and the content
	// of the files among them. Less precise than the rest: what is compared again is counted again.
	Done      atomic.Int64
	DoneBytes atomic.Int64
	// SkippedDirs counts directories that were in step as a whole, so that nobody looked at how much they hold.
	SkippedDirs atomic.Int64
	// Lost holds a slave.Lost: what the slave could not keep so far.
	Lost atomic.Uint32
	kept notKept
	// Evicted is set once something that was removed had to go before its time, since the slave was full.
	Evicted atomic.Bool
}

// inBatch is how much content travels with an operation.
func inBatch(op *slave.Op) int64 {
	if op.Streams() {
		return op.Meta.Size
	}
	return 0
}

// uploaded counts a segment that has arrived: what of it was read and sent, or found on the slave.
func (c *Counters) uploaded(s *slave.Segment) {
	for i := range s.Parts {
		c.Bytes.Add(s.Parts[i].Size())
		if s.Parts[i].Data == nil {
			c.Reused.Add(s.Parts[i].Len)
		}
	}
}

// end counts the result of an operation.
func (c *Counters) end(op *slave.Op, r slave.Result) {
	if r.Evicted {
		c.Evicted.Store(true)
	}
	if r.Lost != 0 {
		c.Lost.Or(uint32(r.Lost))
		c.kept.add(op.Path, r.Lost)
	}
	if r.Err != nil {
		return
	}
	switch op.Kind {
	case slave.OpMkdir, slave.OpPut, slave.OpSymlink, slave.OpNode, slave.OpLink, slave.OpMeta:
		c.Done.Add(1)
	}
	switch op.Kind {
	case slave.OpPut:
		c.DoneBytes.Add(op.Meta.Size)
		c.Files.Add(1)
		c.Bytes.Add(inBatch(op))
	case slave.OpLink:
		c.Links.Add(1)
	case slave.OpMeta:
		if op.Entry == slave.File {
			c.DoneBytes.Add(op.Meta.Size)
		}
		c.Adopted.Add(1)
	case slave.OpUnpark:
		c.Renames.Add(1)
	case slave.OpPark:
		c.Purges.Add(1)
	}
}

// Share is the content that one name of an inode stands for: the shares of all its names add up to the file's size. It
// is 0 for what is no file.
func Share(st *beneath.Stat) int64 {
	if slave.KindOf(st.Mode) != slave.File {
		return 0
	}
	return st.Size / int64(max(1, st.Nlink))
}

// planned counts what one directory's plan leaves alone because it is in step: all that was listed but what the plan has
// an operation for, which counts when that is done.
func (c *Counters) planned(listed []plan.Entry, p *plan.Plan) {
	entries, bytes, dirs := len(listed)-len(p.Items)-len(p.MissingNames), int64(0), 0
	for i := range listed {
		bytes += Share(&listed[i].Stat)
		if listed[i].Kind == slave.Dir {
			dirs++
		}
	}
	for i := range p.Items {
		bytes -= Share(&p.Items[i].Entry.Stat)
	}
	for i := range p.Children {
		if p.Children[i].Make {
			entries--
		}
	}
	c.Done.Add(int64(entries))
	c.DoneBytes.Add(bytes)
	c.SkippedDirs.Add(int64(dirs - len(p.Children)))
}
