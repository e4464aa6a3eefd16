package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// host stands in for a running test, so that the harness of the tests (mounts, sshd) serves this program too: it keeps
// what is to be cleaned up, and Fatal ends the goroutine that guarded started. The embedded interface is nil and only
// lends its unexported method; what is not defined here must not be called.
type host struct {
	testing.TB
	name string
	ctx  context.Context
	log  io.Writer

	mu       sync.Mutex
	cleanups []func()
	problems []string
}

// guarded runs do in a goroutine of its own, cleans up after it, and returns what it complained of, skipping included: a
// row that cannot run is no result.
func guarded(ctx context.Context, name string, log io.Writer, do func(t *host)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &host{name: name, ctx: ctx, log: log}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.cleanUp()
		do(t)
	}()
	<-done
	if len(t.problems) == 0 {
		return nil
	}
	return errors.New(strings.Join(t.problems, "; "))
}

// cleanUp runs the cleanups, last first, each though another one ends its goroutine.
func (t *host) cleanUp() {
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.mu.Unlock()
			return
		}
		last := t.cleanups[n-1]
		t.cleanups = slices.Delete(t.cleanups, n-1, n)
		t.mu.Unlock()
		done := make(chan struct{})
		go func() {
			defer close(done)
			last()
		}()
		<-done
	}
}

func (t *host) problem(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.problems = append(t.problems, strings.TrimSpace(text))
}

// Helper implements testing.TB.
func (t *host) Helper() {}

// Name implements testing.TB.
func (t *host) Name() string { return t.name }

// Context implements testing.TB; it ends with the row.
func (t *host) Context() context.Context { return t.ctx }

// Cleanup implements testing.TB.
func (t *host) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

// Failed implements testing.TB.
func (t *host) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.problems) > 0
}

// Log implements testing.TB.
func (t *host) Log(args ...any) { fmt.Fprint(t.log, t.name, ": ", fmt.Sprintln(args...)) }

// Logf implements testing.TB.
func (t *host) Logf(format string, args ...any) { t.Log(fmt.Sprintf(format, args...)) }

// Error implements testing.TB.
func (t *host) Error(args ...any) { t.problem(fmt.Sprintln(args...)) }

// Errorf implements testing.TB.
func (t *host) Errorf(format string, args ...any) { t.problem(fmt.Sprintf(format, args...)) }

// Fatal implements testing.TB.
func (t *host) Fatal(args ...any) {
	t.Error(args...)
	runtime.Goexit()
}

// Fatalf implements testing.TB.
func (t *host) Fatalf(format string, args ...any) {
	t.Errorf(format, args...)
	runtime.Goexit()
}

// Skip implements testing.TB.
func (t *host) Skip(args ...any) { t.Fatal(args...) }

// Skipf implements testing.TB.
func (t *host) Skipf(format string, args ...any) { t.Fatalf(format, args...) }

// TempDir implements testing.TB.
func (t *host) TempDir() string {
	dir, err := os.MkdirTemp("", "georep-bench-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// must ends the row where err is not nil.
func (t *host) must(err error) {
	if err != nil {
		t.Fatal(err)
	}
}
