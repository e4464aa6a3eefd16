package slave

import (
	"context"

	"georep/marker/xtime"
)

// LookOnly is the part of a Tree that a slave which was opened aside refuses: whatever asks it to change, or only makes sense for who
// changes it. It is embedded in those.
type LookOnly struct{}

// Find is refused.
func (LookOnly) Find(context.Context, []xtime.GFID) ([]Found, error) { return nil, ErrAside }

// Groups is refused.
func (LookOnly) Groups(context.Context, int) ([]Group, error) { return nil, ErrAside }

// Apply is refused.
func (LookOnly) Apply(context.Context, *Batch) ([]Result, error) { return nil, ErrAside }

// Begin is refused.
func (LookOnly) Begin(context.Context, *Upload) (UploadState, error) {
	return UploadState{}, ErrAside
}

// Sums is refused.
func (LookOnly) Sums(context.Context, SumsQuery, func(int64, []byte) error) (Result, error) {
	return Result{}, ErrAside
}

// Write is refused.
func (LookOnly) Write(context.Context, *Segment) (Result, error) { return Result{}, ErrAside }

// Clean is refused.
func (LookOnly) Clean(context.Context, int64) error { return ErrAside }
