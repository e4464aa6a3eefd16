package worker

import (
	"georep/crawler/retry"
	"georep/slave"
)

// cause is why an entry is held back, without the operation and the path, which are told beside it.
// The status shows both in columns of their own.
func cause(f *retry.Failure) error {
	// Not errors.As: what wraps it says more.
	if of, ok := f.Err.(*slave.PathError); ok && of.Op == f.Op && of.Path == f.Path {
		return of.Err
	}
	return f.Err
}
