package gluster

import (
	"errors"
	"io"

	"georep/crawler/plan"
	"georep/crawler/source"
	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// watched is a file that is read, held by its inode, and as it was listed. Its xtime is asked again after the content: a mark comes after the
// change that it is for, so a content that is read between the two goes with an xtime that is too old, and the mark brings it back.
type watched struct {
	inode  *beneath.Dir
	names  *xtime.Names
	listed *plan.Entry
}

// watch holds on to the inode that was listed.
func (s *Source) watch(d *beneath.Dir, listed *plan.Entry) (*watched, error) {
	inode, err := d.Pin(listed.Name)
	if err != nil {
		return nil, err
	}
	g, err := inode.GFID("")
	if err == nil && g != listed.Record.GFID {
		err = source.ErrMoved
	}
	if err != nil {
		inode.Close()
		return nil, err
	}
	return &watched{inode, &s.names, listed}, nil
}

// changed tells whether the file was marked since it was listed. What is marked later has a later xtime, and brings the file back.
func (w *watched) changed() (bool, error) {
	t, err := w.inode.Xtime("", w.names)
	return err == nil && t != 0 && t != w.listed.Record.Xtime, err
}

// OpenContent implements source.Source. The inode is held before the content is opened, and the local tree opens no other one.
func (s *Source) OpenContent(d *beneath.Dir, listed *plan.Entry) (slave.Content, error) {
	w, err := s.watch(d, listed)
	if err != nil {
		return nil, err
	}
	c, err := s.Source.OpenContent(d, listed)
	if err != nil {
		w.inode.Close()
		return nil, err
	}
	return &content{Content: c, file: w}, nil
}

// content is torn if the file was marked while it was read.
type content struct {
	slave.Content
	file *watched
	torn bool
}

// Next implements slave.Content.
func (c *content) Next() (slave.Piece, error) {
	p, err := c.Content.Next()
	if !errors.Is(err, io.EOF) {
		return p, err
	}
	torn, terr := c.file.changed()
	if terr != nil {
		return p, terr
	}
	c.torn = torn
	return p, err
}

// End implements slave.Content.
func (c *content) End() slave.End {
	end := c.Content.End()
	end.Torn = end.Torn || c.torn
	return end
}

// Close implements slave.Content.
func (c *content) Close() error { return errors.Join(c.Content.Close(), c.file.inode.Close()) }

// OpenFile implements source.Source.
func (s *Source) OpenFile(d *beneath.Dir, listed *plan.Entry) (source.File, error) {
	w, err := s.watch(d, listed)
	if err != nil {
		return nil, err
	}
	t, err := w.inode.Xtime("", w.names)
	if t == 0 {
		t = listed.Record.Xtime // of the time before indexing
	}
	var f source.File
	if err == nil {
		f, err = s.Source.OpenFile(d, listed)
	}
	if err != nil {
		w.inode.Close()
		return nil, err
	}
	return &file{File: f, file: w, opened: t}, nil
}

// file is a source.File. The local tree's tells of changes by times and size, watched of those that leave these as they were.
type file struct {
	source.File
	file   *watched
	opened xtime.Time // its xtime before it was opened
}

// Version implements source.File.
func (f *file) Version() slave.Version { return versionOf(f.file.listed.Record.GFID, f.opened) }

// Changed implements source.File.
func (f *file) Changed() (bool, error) {
	if changed, err := f.File.Changed(); changed || err != nil {
		return changed, err
	}
	return f.file.changed()
}

// Digest implements source.File.
func (f *file) Digest(live func() error) slave.HashResult {
	res := f.File.Digest(live)
	if res.Err != nil {
		return res
	}
	switch changed, err := f.file.changed(); {
	case err != nil:
		return slave.HashResult{Err: err}
	case changed:
		return slave.HashResult{Err: slave.ErrConflict}
	}
	return res
}

// Close implements source.File.
func (f *file) Close() error { return errors.Join(f.File.Close(), f.file.inode.Close()) }
