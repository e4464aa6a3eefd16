package crawler

import (
	"context"
	"time"

	"georep/slave"
)

// OnScan has fn called after a search for names of inodes has listed a directory.
func (c *Crawler) OnScan(fn func(dir string)) { c.scanned = fn }

// OnLeave has fn called, before a visit ends, when what it kept is on its way.
func (c *Crawler) OnLeave(fn func(dir string)) { c.left = fn }

// Clock sets the clock by which files wait.
func (c *Crawler) Clock(now func() time.Time) { c.debounce.now = now }

// Absorb does what Follow does with hints before a Pass.
func (c *Crawler) Absorb() bool { _, ok := c.absorb(); return ok }

// Free sets how many entries may always be removed.
func (c *Crawler) Free(n int64) { c.free = n }

// Heavy sets how large a file has to be, in bytes, to be worked on beside the crawls, which Beside begins until the function that it
// returns is called; Follow does the same.
func (c *Crawler) Heavy(n int64) { c.heavy = n }

// Beside is what Heavy says.
func (c *Crawler) Beside(ctx context.Context) (end func()) { return c.bulk.begin(ctx, c) }

// AllReady tells whether nothing is under way beside the crawls.
func (c *Crawler) AllReady() bool {
	c.bulk.mu.Lock()
	defer c.bulk.mu.Unlock()
	for _, j := range c.bulk.jobs {
		if j.ended.IsZero() {
			return false
		}
	}
	return true
}

// Large sets of how large a basis the strong sums are asked for first, in bytes.
func (c *Crawler) Large(n int64) { c.large = n }

// Verify verifies the crawler's master against a slave that is open aside. Nothing changes meanwhile.
func (c *Crawler) Verify(ctx context.Context, there slave.Reader, found func(Difference)) (VerifySummary, error) {
	settle := func(context.Context) error { return nil }
	return Verify(ctx, c.opts, VerifyOptions{Slave: there, Settle: settle, Found: found})
}

// CleanWhileBusy cleans as Follow does before a crawl, where the slave has everything up to synced.
func CleanWhileBusy(ctx context.Context, c *Crawler, o FollowOptions, synced time.Time) error {
	f := &follower{c: c, o: o, prog: Progress{LastSynced: synced}}
	return f.cleanWhileBusy(ctx)
}

// GroupsAtOnce changes of how many inodes the names are checked at a time.
func (c *Crawler) GroupsAtOnce(n int) { c.groupsAtOnce = n }

// InSteps has inodes with so many names linked in steps of so many.
func (c *Crawler) InSteps(many uint32, step int64) {
	least := max(step, 1)
	c.names = names{many: many, step: step, look: min(least, usualNames().look), share: int(2 * least), few: int(least)}
}
