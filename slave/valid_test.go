package slave_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave"
)

func TestQueryValid(t *testing.T) {
	for _, c := range []struct {
		q    slave.Query
		want bool
	}{
		{slave.Query{}, true}, {slave.Query{Path: "a/b"}, true}, {slave.Query{Path: "../b"}, false}, {slave.Query{Path: slave.Reserved}, false},
		{slave.Query{Part: 3}, true}, {slave.Query{Part: 3, Parts: 4}, true}, {slave.Query{Part: 4, Parts: 4}, false},
		{slave.Query{ByName: true, Names: []string{"a", "b"}}, true}, {slave.Query{ByName: true, Names: []string{"a", "b/c"}}, false},
		{slave.Query{ByName: true, Names: []string{".."}}, false}, {slave.Query{ByName: true, Names: names(slave.MaxNames)}, true},
		{slave.Query{ByName: true, Names: names(slave.MaxNames + 1)}, false},
	} {
		if got := c.q.Valid(); got != c.want {
			t.Errorf("%.200q: %v", fmt.Sprint(c.q), got)
		}
	}
}

func names(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = "name"
	}
	return all
}

func TestUploadValid(t *testing.T) {
	for _, c := range []struct {
		u    slave.Upload
		want bool
	}{
		{slave.Upload{GFID: xtime.GFID{1}}, true}, {slave.Upload{GFID: xtime.GFID{1}, Size: 7, Basis: "a/b"}, true}, {slave.Upload{}, false},
		{slave.Upload{GFID: xtime.GFID{1}, Size: -1}, false}, {slave.Upload{GFID: xtime.GFID{1}, Basis: slave.Reserved + "/owner"}, false},
	} {
		if got := c.u.Valid(); got != c.want {
			t.Errorf("%+v: %v", c.u, got)
		}
	}
}

// TestSegmentValid: a segment lies in the content, its parts in it and in the basis, one behind the other.
func TestSegmentValid(t *testing.T) {
	const size, most = 100, 1<<63 - 1
	data := func(off int64, n int) slave.Part { return slave.Part{Off: off, Data: make([]byte, n)} }
	of := func(off, n, from int64) slave.Part { return slave.Part{Off: off, Len: n, From: from} }
	for _, c := range []struct {
		off, end, basis int64
		parts           []slave.Part
		want            bool
	}{
		{0, 100, 0, nil, true}, {50, 50, 0, nil, true}, {0, 101, 0, nil, false}, {-1, 5, 0, nil, false}, {6, 5, 0, nil, false},
		{10, 20, 0, []slave.Part{data(10, 10)}, true}, {10, 20, 0, []slave.Part{data(12, 2), data(14, 6)}, true},
		{10, 20, 0, []slave.Part{data(9, 2)}, false}, {10, 20, 0, []slave.Part{data(15, 6)}, false},
		{10, 20, 0, []slave.Part{data(12, 4), data(15, 1)}, false}, {10, 20, 0, []slave.Part{data(12, 0)}, false},
		{10, 20, 0, []slave.Part{of(10, 5, 0)}, false}, {10, 20, 8, []slave.Part{of(10, 5, 0)}, true},
		{10, 20, 8, []slave.Part{of(10, 5, 3)}, true}, {10, 20, 8, []slave.Part{of(10, 5, 4)}, false},
		{10, 20, 8, []slave.Part{of(10, 5, -1)}, false}, {10, 20, 8, []slave.Part{of(10, 5, most)}, false},
		{10, 20, most, []slave.Part{of(10, most, 0)}, false}, {10, 20, 8, []slave.Part{of(10, -5, 0)}, false},
		{0, 100, 0, make([]slave.Part, slave.MaxSegmentParts+1), false},
	} {
		s := slave.Segment{Range: slave.Range{Off: c.off, End: c.end}, Parts: c.parts}
		if got := s.Valid(size, c.basis); got != c.want {
			t.Errorf("%d to %d of %d parts, basis %d: %v", c.off, c.end, len(c.parts), c.basis, got)
		}
	}
}

func TestOutOfRoom(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {unix.ENOSPC, true}, {&slave.PathError{Op: "write", Path: "a", Err: unix.EDQUOT}, true}, {&slave.LimitError{Text: "full"}, true},
		{unix.EROFS, false}, {fs.ErrNotExist, false}, {slave.SourceError(unix.ENOSPC), false},
		{errors.Join(slave.ErrXattrRoom, unix.ENOSPC), false},
	} {
		if got := slave.OutOfRoom(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

// TestSourceError marks once, and keeps the cause.
func TestSourceError(t *testing.T) {
	err := slave.SourceError(unix.EIO)
	if !errors.Is(err, slave.ErrSource) || !errors.Is(err, unix.EIO) || slave.SourceError(err) != err {
		t.Errorf("%v", err)
	}
}
