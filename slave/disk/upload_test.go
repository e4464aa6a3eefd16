package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/slavetest"
)

// sendUpload does what a worker does for one file, and tells whether all of it succeeded.
func sendUpload(f *slavetest.Fixture, text []byte) bool {
	f.Helper()
	v, size := slave.Version{1}, int64(len(text))
	state, err := f.Tree.Begin(f.Context(), &slave.Upload{GFID: slavetest.GFID(1), Version: v, Size: size, Basis: "old"})
	if err != nil {
		f.Fatal(err)
	}
	if state.Err != nil {
		return false
	}
	have := func(off int64) bool {
		for _, r := range state.Have {
			if r.Off <= off && off < r.End {
				return true
			}
		}
		return false
	}
	const step = 1000
	for off := int64(0); off < size; off += step {
		if have(off) {
			continue
		}
		end := min(off+step, size)
		part := slave.Part{Off: off, Data: text[off:end]}
		if state.BlockSize > 0 && off == 0 {
			part = slave.Part{Len: end} // the basis begins with the same
		}
		r, err := f.Tree.Write(f.Context(), &slave.Segment{GFID: slavetest.GFID(1), Version: v,
			Range: slave.Range{Off: off, End: end}, Parts: []slave.Part{part}})
		if err != nil {
			f.Fatal(err)
		}
		if r.Err != nil {
			return false
		}
	}
	op := slavetest.Put("file", slavetest.Rec(1, 2), "")
	op.Open, op.Uploaded, op.Version, op.Meta.Size = nil, true, v, size
	return f.Apply(op)[0].Err == nil
}

// TestUploadFailsAnywhere fails each change to the file system once, in turn; the upload is then tried again, by the same
// session and by a new one. Nothing but the whole content ever has its name.
func TestUploadFailsAnywhere(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789"), 450)
	for _, again := range []bool{false, true} {
		for n, done := 0, false; !done; n++ {
			t.Run(fmt.Sprintf("operation %d again %v", n, again), func(t *testing.T) {
				f, s := newSeamed(t)
				f.Must(slavetest.Put("old", slavetest.Rec(9, 1), string(text[:2000])))
				s.arm(func(k int, op, name string) error {
					if k == n {
						return unix.EIO
					}
					return nil
				})
				whole := sendUpload(f, text)
				calls := s.disarm()
				done = len(calls) <= n
				if done && !whole {
					t.Fatalf("nothing failed, and yet it did not succeed: %q", calls)
				}
				if b, err := os.ReadFile(f.Path("file")); err == nil && !bytes.Equal(b, text) {
					t.Fatalf("half of it has its name: %d bytes", len(b))
				}
				if again {
					if err := f.Tree.Close(); err != nil {
						t.Fatal(err)
					}
					f, _ = seamed(t, f.Root)
				}
				if !sendUpload(f, text) {
					t.Fatal("it does not succeed afterwards")
				}
				f.Content("file", string(text))
				if left, err := os.ReadDir(f.Path(".georep/partial")); err != nil || len(left) > 0 && again {
					t.Logf("left: %v, %v", left, err)
				}
				if err := f.Tree.Clean(t.Context(), -1); err != nil {
					t.Fatal(err)
				}
				if left, err := os.ReadDir(f.Path(".georep/partial")); err != nil || len(left) > 0 {
					t.Fatalf("left after cleaning: %v, %v", left, err)
				}
			})
		}
	}
}

// TestUploadGoesOnInTheNextSession: what arrived is told to the next session, unless its journal is torn, or of another run
// of the kernel.
func TestUploadGoesOnInTheNextSession(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, journal string)
		have  string
		basis int64
	}{
		"as it was": {func(*testing.T, string) {}, "[{0 10} {20 30}]", 0},
		"torn": {func(t *testing.T, j string) {
			if err := os.Truncate(j, headerSize+2*rangeSize-1); err != nil {
				t.Fatal(err)
			}
		}, "[{0 10}]", 0},
		"another boot": {func(t *testing.T, j string) {
			b, err := os.ReadFile(j)
			if err != nil {
				t.Fatal(err)
			}
			b[headerSize-1]++
			if err := os.WriteFile(j, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "[]", 30},
		"wrong ranges": {func(t *testing.T, j string) {
			b, err := os.ReadFile(j)
			if err != nil {
				t.Fatal(err)
			}
			b[headerSize] = 0xff
			if err := os.WriteFile(j, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "[]", 30},
		"gone": {func(t *testing.T, j string) {
			if err := os.Remove(j); err != nil {
				t.Fatal(err)
			}
		}, "[]", 30},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := newSeamed(t)
			u := slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: 100}
			if s, err := f.Tree.Begin(t.Context(), &u); err != nil || s.Err != nil {
				t.Fatal(s.Err, err)
			}
			for _, off := range []int64{0, 20} {
				r, err := f.Tree.Write(t.Context(), &slave.Segment{GFID: u.GFID, Version: u.Version,
					Range: slave.Range{Off: off, End: off + 10}, Parts: []slave.Part{{Off: off, Data: []byte("0123456789")}}})
				if err != nil || r.Err != nil {
					t.Fatal(r.Err, err)
				}
			}
			if err := f.Tree.Close(); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, f.Path(".georep/partial/"+u.GFID.String()+journalSuffix))
			f, _ = seamed(t, f.Root)
			if f.Tree.Info().Parked == 0 {
				t.Error("the session is not told that there is something to clean")
			}
			s, err := f.Tree.Begin(t.Context(), &u)
			if err != nil || s.Err != nil || fmt.Sprint(s.Have) != c.have || s.BasisSize != c.basis {
				t.Fatalf("%+v, %v", s, err)
			}
		})
	}
}

// TestManyUploads: no more are held open than fit, and those that were closed go on.
func TestManyUploads(t *testing.T) {
	f, _ := newSeamed(t)
	begin := func(i int) slave.UploadState {
		s, err := f.Tree.Begin(t.Context(), &slave.Upload{GFID: slavetest.GFID(i), Size: 10})
		if err != nil || s.Err != nil {
			t.Fatal(s.Err, err)
		}
		return s
	}
	for i := 1; i <= maxUploads+5; i++ {
		begin(i)
		r, err := f.Tree.Write(t.Context(), &slave.Segment{GFID: slavetest.GFID(i), Range: slave.Range{End: 5}})
		if err != nil || r.Err != nil {
			t.Fatal(r.Err, err)
		}
	}
	if n := len(f.Tree.(*Tree).uploads.open); n > maxUploads {
		t.Errorf("%d are open", n)
	}
	for i := 1; i <= maxUploads+5; i++ {
		if s := begin(i); fmt.Sprint(s.Have) != "[{0 5}]" {
			t.Fatalf("upload %d: %+v", i, s)
		}
	}
}

// TestRangesAreBounded: of an upload no more separate ranges are kept than an answer may tell of. One that fills a gap is taken all the
// same.
func TestRangesAreBounded(t *testing.T) {
	f, _ := newSeamed(t)
	u := slave.Upload{GFID: slavetest.GFID(1), Version: slave.Version{1}, Size: 1 << 20}
	if _, err := f.Tree.Begin(f.Context(), &u); err != nil {
		t.Fatal(err)
	}
	write := func(off int64) error {
		r, err := f.Tree.Write(f.Context(), &slave.Segment{GFID: u.GFID, Version: u.Version, Range: slave.Range{Off: off, End: off + 1},
			Parts: []slave.Part{{Off: off, Data: []byte("x")}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Err
	}
	for i := range int64(slave.MaxRanges) {
		if err := write(2 * i); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(2 * slave.MaxRanges); !errors.Is(err, slave.ErrInvalid) {
		t.Errorf("one range more: %v", err)
	}
	if err := write(1); err != nil {
		t.Errorf("a gap: %v", err)
	}
	if err := write(2 * slave.MaxRanges); err != nil {
		t.Errorf("one range more, where there is room again: %v", err)
	}
	state, err := f.Tree.Begin(f.Context(), &u)
	if err != nil || len(state.Have) != slave.MaxRanges {
		t.Errorf("%d ranges, %v", len(state.Have), err)
	}
}
