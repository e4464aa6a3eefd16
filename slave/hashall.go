package slave

import (
	"context"
	"sync"
)

// Hashers bound how many files a slave hashes at the same time, over all calls.
type Hashers struct {
	Slots chan struct{}   // as many as it has room for
	Ended <-chan struct{} // closed when the session ends
}

// All digests files, each by hash, and gives the answers in the order of paths. When ctx or the session ends it waits for no
// further slot, only for the files at work, and leaves the other answers empty: the caller then gives the error of that.
func (h *Hashers) All(ctx context.Context, paths []string, hash func(path string) HashResult) []HashResult {
	all := make([]HashResult, len(paths))
	var wait sync.WaitGroup
	defer wait.Wait()
	for i, path := range paths {
		select {
		case h.Slots <- struct{}{}:
		case <-ctx.Done():
			return all
		case <-h.Ended:
			return all
		}
		wait.Go(func() {
			defer func() { <-h.Slots }()
			all[i] = hash(path)
		})
	}
	return all
}
