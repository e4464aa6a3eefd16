package tree

import (
	"fmt"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"georep/integration/harness/internal/at"
)

// Many makes files of size bytes each below the existing directory root, perDir of them in every directory:
// root/d000000/f000000 and so on. Contents differ from file to file and depend on the file's number alone, so that two
// calls make equal trees, times aside. It works with a few goroutines and returns when all have ended.
func Many(root string, files, perDir, size int) error {
	if files < 0 || perDir < 1 || size < 0 {
		return fmt.Errorf("make %d files of %d bytes, %d a directory: %w", files, size, perDir, unix.EINVAL)
	}
	top, err := at.OpenRoot(root)
	if err != nil {
		return err
	}
	defer unix.Close(top)
	var group errgroup.Group
	group.SetLimit(4)
	for first := 0; first < files; first += perDir {
		group.Go(func() error {
			return manyIn(top, span{first, min(first+perDir, files), first / perDir}, size)
		})
	}
	return group.Wait()
}

// span is the run of file numbers that go into directory number dir.
type span struct{ first, end, dir int }

// manyIn makes one directory with its files.
func manyIn(top int, s span, size int) error {
	name := fmt.Sprintf("d%06d", s.dir)
	if err := unix.Mkdirat(top, name, 0o755); err != nil {
		return fmt.Errorf("make directory %q: %w", name, err)
	}
	dir, err := at.OpenDir(top, name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	data := make([]byte, size)
	for i := s.first; i < s.end; i++ {
		numbered(data, i)
		if err := writeAt(dir, fmt.Sprintf("f%06d", i-s.first), data); err != nil {
			return fmt.Errorf("in %q: %w", name, err)
		}
	}
	return nil
}

// numbered fills data with what belongs to file number i. The sequence is started anew for each file because a file's
// content must not depend on which directory it shares.
func numbered(data []byte, i int) {
	Fill(data, uint64(i+1)*0x9e3779b97f4a7c15)
}
