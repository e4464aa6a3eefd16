package beneath

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func openForDigest(t *testing.T, path string) (*Inode, Stat) {
	t.Helper()
	d, err := OpenRoot(filepath.Dir(path), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	f, err := d.OpenInode(filepath.Base(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st
}

// TestDigestOfHoles: what is a hole in one file, and zeros in another, makes no difference, in whatever pieces it comes; all
// else does.
func TestDigestOfHoles(t *testing.T) {
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		content := make([]byte, 2<<20+rnd.IntN(3*digestBlock))
		holes, stored := filepath.Join(t.TempDir(), "h"), filepath.Join(t.TempDir(), "s")
		f, err := os.Create(holes)
		if err == nil {
			err = f.Truncate(int64(len(content)))
		}
		for range rnd.IntN(6) {
			at, n := rnd.IntN(len(content)), 1+rnd.IntN(3*digestBlock)
			part := content[at:min(at+n, len(content))]
			for i := range part {
				part[i] = byte(rnd.IntN(2))
			}
			if err == nil {
				_, err = f.WriteAt(part, int64(at))
			}
		}
		if err = errors.Join(err, f.Close(), os.WriteFile(stored, content, 0o600)); err != nil {
			t.Fatal(err)
		}
		d := NewDigest([]byte("p"))
		for rest := content; len(rest) > 0; {
			k := min(1+rnd.IntN(2*digestBlock), len(rest))
			if rnd.IntN(2) == 0 && len(bytes.Trim(rest[:k], "\x00")) == 0 {
				d.Skip(int64(k))
			} else {
				_, _ = d.Write(rest[:k])
			}
			rest = rest[k:]
		}
		size, want := d.Sum()
		if size != int64(len(content)) {
			t.Fatalf("seed %d: size %d, want %d", seed, size, len(content))
		}
		live := func() error { return nil }
		for _, path := range []string{holes, stored} {
			in, st := openForDigest(t, path)
			n, sum, err := in.DigestAfter([]byte("p"), &st, live)
			if err != nil || n != size || sum != want {
				t.Fatalf("seed %d: %s: %d %x, %v; want %d %x", seed, path, n, sum, err, size, want)
			}
		}
		other := bytes.Clone(content)
		other[rnd.IntN(len(other))]++
		for _, b := range [][]byte{other, append(bytes.Clone(content), 0), content[:len(content)-1], append(make([]byte, digestBlock), content...)} {
			d := NewDigest([]byte("p"))
			_, _ = d.Write(b)
			if _, sum := d.Sum(); sum == want {
				t.Fatalf("seed %d: another content has the same digest", seed)
			}
		}
	}
}

// TestDigestReadsNoHoles: of 4 TiB with a few KiB of data no more than these are read.
func TestDigestReadsNoHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(4 << 40)
	}
	for _, at := range []int64{0, 1 << 30, 3<<40 + 12345} {
		if err == nil {
			_, err = f.WriteAt([]byte("data"), at)
		}
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	in, st := openForDigest(t, path)
	pieces := 0
	size, _, err := in.Digest(&st, func() error {
		if pieces++; pieces > 100 {
			return errors.New("it reads what is a hole")
		}
		return nil
	})
	if err != nil || size != 4<<40 {
		t.Fatalf("%d after %d pieces: %v", size, pieces, err)
	}
}

// TestDigestOfASmallFileIsOneRead: a file that one read has to its end costs no further one. Of a file whose size was another
// when it was looked at the end is looked for.
func TestDigestOfASmallFileIsOneRead(t *testing.T) {
	const piece = 256 << 10
	for _, c := range []struct{ size, looked, reads int64 }{
		{0, 0, 1}, {1, 1, 1}, {4096, 4096, 1}, {piece - 1, piece - 1, 1}, {piece, piece, 2}, {piece + 1, piece + 1, 2},
		{4096, 4095, 1}, {4096, 5000, 2}, {2*piece + 7, piece, 2},
	} {
		path := filepath.Join(t.TempDir(), "f")
		content := bytes.Repeat([]byte{1}, int(c.size))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		in, st := openForDigest(t, path)
		st.Size = c.looked
		reads := int64(0)
		in.dir.Hook(func(op, _ string) error {
			if op == "read" {
				reads++
			}
			return nil
		})
		size, sum, err := in.Digest(&st, func() error { return nil })
		if err != nil || reads != c.reads {
			t.Errorf("%+v: %d reads, %v", c, reads, err)
		}
		whole := NewDigest(nil)
		_, _ = whole.Write(content[:size])
		if _, want := whole.Sum(); sum != want || size != c.size && size <= c.looked {
			t.Errorf("%+v: another digest, of %d bytes", c, size)
		}
	}
}

// TestDigestOfAGrowingFile: whoever adds to a file while it is read cannot keep a reader busy: no more is read than tells that it
// has grown.
func TestDigestOfAGrowingFile(t *testing.T) {
	for shape, blocks := range map[string]uint64{"full": 1 << 30, "sparse": 0} {
		t.Run(shape, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "f"), bytes.Repeat([]byte{1}, 2*sparseLeast), 0o600); err != nil {
				t.Fatal(err)
			}
			d, err := OpenRoot(dir, true)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			f, err := d.OpenInode("f")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w, err := os.OpenFile(filepath.Join(dir, "f"), os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			endless := errors.New("it goes on and on")
			pieces := 0
			size, _, err := f.Digest(&Stat{Mode: unix.S_IFREG, Size: 2 * sparseLeast, Blocks: blocks}, func() error {
				if pieces++; pieces > 100 {
					return endless
				}
				_, err := w.Write(make([]byte, 512<<10))
				return err
			})
			if err != nil || size <= 2*sparseLeast {
				t.Errorf("%d bytes, %v: want to know that it has grown", size, err)
			}
		})
	}
}

// TestExtentsAreNotEmpty: a device answers 0 to each search, and a loop over its extents is to end all the same.
func TestExtentsAreNotEmpty(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "null"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	d, err := OpenRoot(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	f, err := d.OpenInode("null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < 1<<20; off += 1 << 18 {
		if start, end, err := f.Extent(off); err != nil || start < off || end <= start {
			t.Errorf("from %d: %d to %d, %v", off, start, end, err)
		}
	}
}
