package sftp

import (
	"context"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
)

var _ slave.Describer = (*Inspector)(nil)

// Examine tells what is known of each entry. What its file cannot have, such as xattrs, stands in the index; of what has no record there
// nothing is known but what the file shows.
func (a *Inspector) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	if err := a.enter(); err != nil {
		return nil, err
	}
	defer a.leave()
	out := make([]slave.Detail, len(paths))
	g := new(errgroup.Group)
	g.SetLimit(asksAtOnce)
	for i, path := range paths {
		g.Go(func() error {
			if err := a.live(ctx); err != nil {
				return err
			}
			d, err := a.examine(nonce, path)
			if d.Err = nil; err != nil {
				d = slave.Detail{Err: trouble("examine", path, a.reason(err))}
			}
			out[i] = d
			return a.first().Err()
		})
	}
	return out, g.Wait()
}

// examine looks at one entry.
func (a *Inspector) examine(nonce slave.Nonce, path string) (d slave.Detail, err error) {
	p := place{index.Top, "", index.TopName}
	if path != "" {
		if !slave.AllowedPath(path) {
			return d, slave.ErrInvalid
		}
		if err := a.checkDirs(path); err != nil {
			return d, err
		}
		dir, name := beneath.Split(path)
		p.path, p.name = path, name
		if p.dir, err = a.idOf(dir); err != nil {
			return d, err
		}
	}
	f, err := a.look(p)
	if err != nil {
		return d, err
	}
	if !f.present() {
		return d, fs.ErrNotExist
	}
	d.EntryState = stateOf("", f.attrs, &f.entry, f.known)
	if f.known {
		d.Xattrs, d.ACL = slave.DigestXattrs(nonce, f.entry.Meta.Xattrs, true)
		d.Target = f.entry.Meta.Target
		return d, nil
	}
	if d.Coarse = true; d.Kind == slave.Symlink {
		d.Target, err = a.readlink(path)
	}
	return d, err
}
