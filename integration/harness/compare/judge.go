package compare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// ErrDiffer is wrapped by what Equal and Wait return when the trees are not the same.
var ErrDiffer = errors.New("trees differ")

// Equal compares like Trees and turns differences into one error that lists them, a line each.
func Equal(a, b string, opts Options) error {
	found, err := Trees(a, b, opts)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%q and %q: %w:\n%s", a, b, ErrDiffer, List(found))
}

// List formats differences for a failure message, one on a line.
func List(found []Difference) string {
	var text strings.Builder
	for _, d := range found {
		text.WriteString("  " + d.String() + "\n")
	}
	return text.String()
}

// MustEqual ends the test when the trees differ.
func MustEqual(t testing.TB, a, b string, opts Options) {
	t.Helper()
	if err := Equal(a, b, opts); err != nil {
		t.Fatal(err)
	}
}

// Wait compares again and again until the trees are equal or ctx ends; it then returns the last result, which wraps
// ErrDiffer if the trees could be compared and differ. Between two comparisons it rests as long as one took, at least
// 10 ms, so that it does not starve what it waits for.
func Wait(ctx context.Context, a, b string, opts Options) error {
	for {
		begin := time.Now()
		err := Equal(a, b, opts)
		if err == nil {
			return nil
		}
		rest := time.NewTimer(max(time.Since(begin), 10*time.Millisecond))
		select {
		case <-rest.C:
		case <-ctx.Done():
			rest.Stop()
			return err
		}
	}
}
