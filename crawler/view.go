package crawler

import (
	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/filter"
	"georep/marker/xtime"
	"georep/slave"
)

// view is the master as one pass sees it: its source, and what of it is left out.
type view struct {
	source.Source
	filter *filter.Filter
}

// directory is an opened directory of the master.
type directory struct {
	*source.Directory
	// later are children that are visited once the visit of this one has ended: by then it may be finished behind them.
	later []*node
}

// newView begins a pass, given the slave that the master is compared with.
func newView(o *Options, there slave.Reader) (*view, error) {
	c := o.source()
	c.VolumeMark, c.Record = o.VolumeMark(), there.Info().Namespace
	open := o.Source.Open
	if open == nil {
		open = source.OpenLocal
	}
	m, err := open(c)
	if err != nil {
		return nil, err
	}
	return &view{m, o.Filter}, nil
}

// source is the Config of a pass, without what the pass is about.
func (o *Options) source() *source.Config {
	return &source.Config{Root: o.Root, Path: o.Path, Identity: o.Identity, Names: o.Names, Since: o.FilterSince, Mounts: o.mounts,
		FakeOwner: o.Source.FakeOwner}
}

// mounts asks what something is mounted on.
func (o *Options) mounts() map[string]map[string]bool {
	if o.Source.Mounts == nil {
		return nil
	}
	return o.Source.Mounts()
}

// Open is that of the source.
func (v *view) Open(path string, gfid xtime.GFID) (*directory, error) {
	d, err := v.Source.Open(path, gfid)
	if err != nil {
		return nil, err
	}
	return &directory{Directory: d}, nil
}

// digest digests a file. An error means that it is not the one that was listed.
func (v *view) digest(d *directory, e *plan.Entry, live func() error) slave.HashResult {
	if e.Kind != slave.File {
		return slave.HashResult{Err: slave.ErrConflict}
	}
	f, err := v.OpenFile(d.Dir, e)
	if err != nil {
		return slave.HashResult{Err: err}
	}
	defer f.Close()
	return f.Digest(live)
}
