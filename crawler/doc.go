// Package crawler brings a slave in step with its master by comparing xtimes, directory by directory, and goes down
// only where the master is newer. It reads the master and never writes to it; it changes the slave only through
// slave.Tree. Where a crawl stands is stored nowhere: the xtimes are the queue, and after any end the next crawl
// derives the rest from them.
//
// One crawl, from the root (Crawler.Pass):
//
//	visit(directory):
//	    open it beneath the root; it must be the inode that its parent listed     (else it moved: its new mark brings it)
//	    read its xtime, then list it                                              (invariant 4: this xtime may be stamped)
//	    survey it on the slave, many directories in one request
//	    plan: what is stale, what is to be brought over, where to go down         (pure, package plan)
//	    park what is stale, if the master still lacks it                          (invariants 10, 15)
//	    make directories, ship files in batches; each answer comes on its own
//	    visit the children
//	when all of it has succeeded: finish(directory) sets its times and its stamp  (invariant 5)
//	when something failed: finish without the stamp, here and in every directory above (invariant 6)
//
// Where the marker has told all that changed in a directory since the slave's stamp, only those names are looked at, on
// either side (hints.go, hinted.go): the cost of a change does not grow with its directory. Hints are never believed beyond
// what the xtimes prove.
//
// What fails is kept by path, with its reason and a time before which it is not tried again, and held back alone.
package crawler

import (
	"time"

	"github.com/rs/zerolog"

	"georep/crawler/limit"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// Options say what a Crawler works on. All but those from MaxDelete on must be set.
type Options struct {
	Root       *beneath.Dir // of the master, opened with oneFS; the caller's to close, after the Crawler is done
	Path       string       // of Root, for messages
	Names      xtime.Names  // of the master's xattrs
	VolumeMark func() xtime.Time
	Identity   beneath.Identity // what Root must be; the zero value is not checked
	Tree       slave.Tree       // the caller's to close
	Logger     zerolog.Logger
	Counters   *Counters // what is counted; shared with whoever reports

	// MaxDelete is the share of the tree, in percent, that one crawl may remove without the operator's word. 100 lets it
	// remove everything.
	MaxDelete int
	// FreeDeletes is how many entries may always be removed, however small the tree is, unless MaxDelete is 0.
	FreeDeletes int64
	Approvals   limit.Approvals // what beyond that may go; nil: nothing
	Quick       bool
	Source      SourceOptions
	// Filter says what is left out; nil: nothing. FilterSince is an xtime after which the slave was given no stamp under another
	// filter, and which no mark of the master has; 0: there never was one.
	Filter      *filter.Filter
	FilterSince xtime.Time
	// Hints spare listings; nil: there are none.
	Hints *Hints
	// QuietPeriod and MaxDelay: a file that keeps changing is shipped once it was quiet for QuietPeriod, but no later than MaxDelay
	// after its first change that was not shipped. A QuietPeriod of 0: nothing waits.
	QuietPeriod, MaxDelay time.Duration

	RetryMax time.Duration // bound of the back-off of one entry; 0 means a minute
	InFlight int           // batches on their way, sent and not yet answered; 0 means 8
}

// SourceOptions say how the master is read.
type SourceOptions struct {
	// Open begins each pass over the master; nil: source.OpenLocal.
	Open source.Opener
	// Mounts tells, by directory and name, what something is mounted on: true where the marker knows that, and will mark all
	// that is there once it can be seen again. It is asked for each directory, and again for what is found to be covered.
	// The result is read only. nil: nothing is mounted anywhere, or is known to be.
	Mounts func() map[string]map[string]bool
	// FakeOwner says that the master was filled as a slave under the policy of that name: what xattrs keep of its entries is the truth.
	FakeOwner bool
}
