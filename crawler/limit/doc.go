// Package limit keeps a crawl from removing more of a slave than the operator allows without being asked (invariant 10).
//
//	Guard    decides of one crawl what may go, and counts what has gone (guard.go); what the operator has approved (purge.go);
//	         names that moves left behind, which lose nothing (oldnames.go)
//	Losses   by how much the slave has shrunk lately, over all crawls (losses.go)
//	Purge    what a crawl was refused, for the operator
//
// How it counts:
//
//   - A removal counts from the moment at which the slave has answered that it parked something, with all that lies in it, until the
//     minute is over or the inode is back. What fails, and what is repeated, does not count twice.
//   - What was promised to a visit, and is not parked yet, counts as well. So visits that ask at the same time cannot together take
//     more than one of them may.
//   - What came to the slave within the last five minutes counts on neither side: unpacking and removing an archive loses nothing.
//   - How much the slave has had is counted only when it matters, and only as far as needed to know that the share is not reached. So a
//     removal of ten entries costs no walk over a tree of millions.
//   - What is refused stays where it is, and is kept as a Purge, by the keys of its entries. The operator's word lets just these go.
//
// The order of the locks: Guard.mu, Guard.removals, Losses.mu. None is held while the slave is asked.
package limit

import (
	"context"

	"georep/marker/xtime"
	"georep/slave"
)

// Slave is what a Guard asks of a slave. See slave.Reader.
type Slave interface {
	// Count tells how many entries there are below each path, with the entry itself, and may stop at limit.
	Count(ctx context.Context, paths []string, limit int64) ([]int64, error)
	// Survey tells what is in directories: here, what is young in one that is to leave.
	Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error)
}

// Dir is a directory of the slave in which something leaves or comes.
type Dir interface {
	Path() string     // relative to the slave's root
	GFID() xtime.GFID // of the directory on the master
	Above() Dir       // nil above the root
}

// Options say what a Guard goes by.
type Options struct {
	Slave     Slave
	Path      string    // of the master's root, for messages
	MaxDelete int       // percent of what the slave had that may go; 100 lets everything go
	Free      int64     // entries that may always go
	Approvals Approvals // what beyond that may go; nil: nothing
}

// NewGuard is for one crawl.
func NewGuard(o Options, l *Losses) *Guard { return &Guard{opts: o, losses: l} }

// FilledBefore says whether the slave had been filled before this crawl: what the first one brings is what the slave has.
func (g *Guard) FilledBefore(is bool) { g.later.Store(is) }

// surveyed is how many directories are asked for at a time.
const surveyed = 8
