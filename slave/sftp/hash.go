package sftp

import (
	"context"

	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/wire"
)

// Hash digests files: it reads them back.
func (rd *reader) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	if err := rd.enter(); err != nil {
		return nil, err
	}
	defer rd.leave()
	h := slave.Hashers{Slots: rd.hashing, Ended: rd.done}
	all := h.All(ctx, paths, func(path string) slave.HashResult { return rd.hash(ctx, path) })
	return all, rd.live(ctx)
}

// hash digests one file. Only regular files have a content to speak of; opening others might even have effects.
func (rd *reader) hash(ctx context.Context, path string) (res slave.HashResult) {
	if path == "" || !slave.AllowedPath(path) {
		return slave.HashResult{Err: trouble("hash", path, slave.ErrInvalid)}
	}
	err := rd.checkDirs(path)
	if err == nil {
		err = rd.digest(ctx, path, &res)
	}
	if err != nil {
		return slave.HashResult{Err: trouble("hash", path, rd.reason(err))}
	}
	return res
}

// digest reads a file back: there is no other way to know what is in it.
func (rd *reader) digest(ctx context.Context, path string, res *slave.HashResult) error {
	a, err := rd.lstat(path)
	if noFile(err) {
		if dir, name := beneath.Split(path); rd.virtual(dir, name) {
			return slave.ErrConflict
		}
	}
	if err != nil {
		return err
	}
	if kindOf(a) != slave.File {
		return slave.ErrConflict
	}
	f, err := rd.any().Open(rd.abs(path), wire.OpenRead, wire.Attrs{})
	if err != nil {
		return err
	}
	defer f.Release()
	d := beneath.NewDigest(nil)
	err = readAll(f, a.Size, func(data []byte) error {
		_, _ = d.Write(data)
		return rd.live(ctx)
	})
	res.Size, res.Sum = d.Sum()
	return err
}
