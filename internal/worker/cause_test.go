package worker

import (
	"fmt"
	"io/fs"
	"testing"

	"georep/crawler/retry"
	"georep/slave"
)

// What is held back is told with its operation and its path once.
func TestCauseIsToldOnce(t *testing.T) {
	at := func(op, path string) error { return &slave.PathError{Op: op, Path: path, Err: fs.ErrPermission} }
	for want, err := range map[string]error{
		"permission denied":                   at("put", "a"),
		`rename "a": permission denied`:       at("rename", "a"),
		`put "b": permission denied`:          at("put", "b"),
		`by rule: put "a": permission denied`: fmt.Errorf("by rule: %w", at("put", "a")),
	} {
		if got := cause(&retry.Failure{Path: "a", Op: "put", Err: err}).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
