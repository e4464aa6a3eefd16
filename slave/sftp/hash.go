package sftp

import (
	"context"
	"sync"

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
	all := make([]slave.HashResult, len(paths))
	var wait sync.WaitGroup
	defer wait.Wait()
	for i, path := range paths {
		select {
		case rd.hashing <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-rd.done:
			return nil, rd.Err()
		}
		wait.Go(func() {
			defer func() { <-rd.hashing }()
			all[i] = rd.hash(ctx, path)
		})
	}
	wait.Wait()
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
