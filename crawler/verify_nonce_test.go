package crawler_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"georep/crawler"
	"georep/slave"
	"georep/slave/disk"
)

// hoarder is a slave that keeps what it was ever asked, and answers with that from then on: it needs no content any more.
type hoarder struct {
	*disk.Inspector
	mu      sync.Mutex
	sums    map[string]slave.HashResult
	details map[string]slave.Detail
}

func (h *hoarder) Digest(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.HashResult, error) {
	return remembered(h, h.sums, paths, func() ([]slave.HashResult, error) { return h.Inspector.Digest(ctx, nonce, paths) })
}

func (h *hoarder) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	return remembered(h, h.sums, paths, func() ([]slave.HashResult, error) { return h.Inspector.Hash(ctx, paths) })
}

func (h *hoarder) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	return remembered(h, h.details, paths, func() ([]slave.Detail, error) { return h.Inspector.Examine(ctx, nonce, paths) })
}

// remembered asks for the truth, and puts what was said before in its place.
func remembered[A any](h *hoarder, said map[string]A, paths []string, ask func() ([]A, error)) ([]A, error) {
	all, err := ask()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, path := range paths {
		if before, ok := said[path]; ok {
			all[i] = before
		} else {
			said[path] = all[i]
		}
	}
	return all, nil
}

// TestVerifyWantsTheContents: a slave that kept digests, of contents and of xattrs, and nothing else is found out. An honest
// one is in step before and after.
func TestVerifyWantsTheContents(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"a", "d/b", "d/c"} {
		w.write(path, "content of "+path)
	}
	w.write("empty", "")
	w.ok(unix.Setxattr(w.at("empty"), "user.x", []byte("1"), 0))
	w.markAll()
	w.inStep()
	there, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test"})
	w.ok(err)
	defer there.Close()
	cheat := &hoarder{Inspector: there, sums: map[string]slave.HashResult{}, details: map[string]slave.Detail{}}
	_, err = cheat.Hash(t.Context(), []string{"a", "d/b", "d/c", "empty"})
	w.ok(err)
	_, err = cheat.Examine(t.Context(), slave.Nonce{}, []string{"", "a", "d", "d/b", "d/c", "empty"})
	w.ok(err)

	if found, v, err := w.verify(nil); err != nil || len(found) > 0 || v.Pending > 0 {
		t.Errorf("an honest slave: %q, %+v, %v", found, v, err)
	}
	var found []string
	_, err = w.crawler.Verify(t.Context(), cheat, func(d crawler.Difference) {
		found = append(found, d.Path+" "+strings.Join(d.Kinds, ","))
	})
	slices.Sort(found)
	if want := []string{"a content", "d/b content", "d/c content", "empty content,xattrs"}; err != nil || !slices.Equal(found, want) {
		t.Errorf("a slave that remembers digests: %q, %v; want %q", found, err, want)
	}
}

// TestVerifyReadsAfresh: the contents are lost between two verifications, and what was answered in the first is of no use.
func TestVerifyReadsAfresh(t *testing.T) {
	w := newWorld(t)
	w.write("d/f", "content")
	w.markAll()
	w.inStep()
	there, err := disk.OpenInspector(disk.Options{Path: w.slave, Master: w.uuid, Session: w.session, Version: "test"})
	w.ok(err)
	defer there.Close()
	cheat := &hoarder{Inspector: there, sums: map[string]slave.HashResult{}, details: map[string]slave.Detail{}}
	verify := func() (found []string, v crawler.VerifySummary) {
		v, err := w.crawler.Verify(t.Context(), cheat, func(d crawler.Difference) { found = append(found, d.Path) })
		w.ok(err)
		return found, v
	}
	if found, v := verify(); len(found) > 0 || v.Entries == 0 {
		t.Fatalf("in step: %q, %+v", found, v)
	}
	w.ok(os.WriteFile(w.there("d/f"), []byte("CONTENT"), 0o644))
	if found, _ := verify(); !slices.Equal(found, []string{"d/f"}) {
		t.Errorf("found %q after the content was lost", found)
	}
}
