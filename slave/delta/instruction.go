package delta

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// Instruction makes one range of the new file, out of the basis or of data that comes along. Those of one file have
// ascending offsets and do not overlap; what they leave out is holes.
type Instruction struct {
	Off  int64  // where in the new file
	Len  int64  // in bytes, at least 1; at most MaxCopy, or MaxData where there is Data
	From int64  // where in the basis, if Data is nil
	Data []byte // of Len bytes; nil: take them from the basis
}

// Check says whether the instruction can be executed with a basis of size bytes: no range is negative, or reaches
// beyond the basis or what an int64 can hold.
func (i Instruction) Check(size int64) error {
	limit := int64(MaxData)
	if i.Data == nil {
		limit = MaxCopy
	}
	switch {
	case i.Len < 1 || i.Len > limit || i.Data != nil && int64(len(i.Data)) != i.Len:
		return fmt.Errorf("instruction of %d bytes, with %d of data: %w", i.Len, len(i.Data), ErrMalformed)
	case i.Off < 0 || i.Off > math.MaxInt64-i.Len:
		return fmt.Errorf("instruction for %d bytes at %d: %w", i.Len, i.Off, ErrMalformed)
	case i.Data == nil && (i.From < 0 || i.From > size-i.Len):
		return fmt.Errorf("copy of %d bytes at %d from a basis of %d bytes: %w", i.Len, i.From, size, ErrMalformed)
	}
	return nil
}

// Apply checks the instruction and executes it: from basis, which has size bytes, to dst. It is the plain way, for any
// reader and writer; between files there are quicker ones.
func Apply(dst io.WriterAt, basis io.ReaderAt, size int64, i Instruction) error {
	if err := i.Check(size); err != nil {
		return err
	}
	if i.Data != nil {
		return writeAt(dst, i.Data, i.Off)
	}
	buf := make([]byte, min(i.Len, readSize))
	for done := int64(0); done < i.Len; {
		b := buf[:min(int64(len(buf)), i.Len-done)]
		if n, err := basis.ReadAt(b, i.From+done); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read %d bytes of the basis at %d: %w", len(b), i.From+done, err)
		}
		if err := writeAt(dst, b, i.Off+done); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}

func writeAt(dst io.WriterAt, b []byte, off int64) error {
	n, err := dst.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("write %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}
