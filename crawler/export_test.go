package crawler

// OnScan has fn called after a search for names of inodes has listed a directory.
func (c *Crawler) OnScan(fn func(dir string)) { c.scanned = fn }
