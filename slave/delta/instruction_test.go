package delta

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"
)

func TestInstructionCheck(t *testing.T) {
	const size = 1000
	for _, i := range []Instruction{
		{Len: 1}, {Len: size}, {From: 999, Len: 1}, {Off: math.MaxInt64 - 5, Len: 5},
		{Len: 3, Data: []byte("abc")}, {Len: MaxData, Data: make([]byte, MaxData)}, {Off: 1 << 62, Len: 1, Data: []byte{0}},
	} {
		if err := i.Check(size); err != nil {
			t.Errorf("%d+%d from %d: %v", i.Off, i.Len, i.From, err)
		}
	}
	for _, i := range []Instruction{
		{}, {Len: -1}, {Len: math.MinInt64}, {Len: size + 1}, {From: 1, Len: size}, {From: -1, Len: 1},
		{From: math.MaxInt64, Len: 1}, {From: math.MaxInt64, Len: math.MaxInt64}, {From: math.MinInt64, Len: 1},
		{Off: -1, Len: 1}, {Off: math.MaxInt64, Len: 1}, {Off: math.MaxInt64 - 5, Len: 6}, {Len: math.MaxInt64},
		{Data: []byte{}}, {Len: 2, Data: []byte("abc")}, {Len: 4, Data: []byte("abc")}, {Off: -1, Len: 1, Data: []byte{1}},
		{Off: math.MaxInt64, Len: 1, Data: []byte{1}}, {Len: MaxData + 1, Data: make([]byte, MaxData+1)},
	} {
		if err := i.Check(size); !errors.Is(err, ErrMalformed) {
			t.Errorf("%d+%d from %d, %d of data: %v", i.Off, i.Len, i.From, len(i.Data), err)
		}
		if err := Apply(memory{}, zeros{}, size, i); !errors.Is(err, ErrMalformed) {
			t.Errorf("applied: %v", err)
		}
	}
	if err := (Instruction{Len: MaxCopy + 1}).Check(math.MaxInt64); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
	if err := (Instruction{Len: 1}).Check(-1); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

// memory is a file of a fixed length.
type memory []byte

func (m memory) WriteAt(b []byte, off int64) (int, error) {
	return copy(m[off:], b), nil
}

// faultyWriter fails from the nth write on.
type faultyWriter struct {
	io.WriterAt
	left int
	err  error
}

func (w *faultyWriter) WriteAt(b []byte, off int64) (int, error) {
	if w.left--; w.left < 0 {
		return 0, w.err
	}
	return w.WriterAt.WriteAt(b, off)
}

// TestApply makes a new file, and fails the first, second, third ... read and write of doing so.
func TestApply(t *testing.T) {
	basis := random(1<<20, 1)
	new := concat([]byte("front"), basis[100_000:900_000], random(400_000, 2), basis)
	x := signed(t, basis, 2048)
	list := encode(t, x, basis, pieces(new, 100_000)).list
	boom := errors.New("boom")
	apply := func(r io.ReaderAt, w io.WriterAt) error {
		for _, i := range list {
			if err := Apply(w, r, int64(len(basis)), i); err != nil {
				return err
			}
		}
		return nil
	}
	made := make(memory, len(new))
	if err := apply(bytes.NewReader(basis), made); err != nil || !bytes.Equal(made, new) {
		t.Fatalf("another content, %v", err)
	}
	for _, what := range []string{"read", "write"} {
		n := 0
		for ; ; n++ {
			var r io.ReaderAt = bytes.NewReader(basis)
			var w io.WriterAt = make(memory, len(new))
			if what == "read" {
				r = &faultyReader{r, n, boom}
			} else {
				w = &faultyWriter{w, n, boom}
			}
			err := apply(r, w)
			if err == nil {
				break
			}
			if !errors.Is(err, boom) {
				t.Fatalf("%s %d: %v", what, n, err)
			}
		}
		if n < 5 {
			t.Errorf("%d %ss", n, what)
		}
	}
	if err := apply(bytes.NewReader(basis[:len(basis)-1]), made); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("truncated basis: %v", err)
	}
	if err := apply(bytes.NewReader(basis), made[:len(made)-1]); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("short write: %v", err)
	}
}
