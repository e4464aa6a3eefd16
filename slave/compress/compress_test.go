package compress

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// seeded gives random bytes that are the same in every run.
func seeded(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// text is Go source: that of the project, so that there is always some.
func text(t testing.TB) []byte {
	var all []byte
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, b...)
		return err
	})
	if err != nil || len(all) < piece {
		t.Fatalf("%d bytes of source, %v", len(all), err)
	}
	return all
}

// force makes w pack or not, whatever the policy thinks.
func force(w *Writer, packed bool) {
	w.mode = Off
	if packed {
		w.mode = Always
	}
}

// stream makes what a Writer makes of the parts, every second of them packed.
func stream(t testing.TB, parts ...[]byte) []byte {
	var out bytes.Buffer
	w := NewWriter(&out, Auto)
	for i, p := range parts {
		force(w, i%2 == 0)
		if n, err := w.Write(p); n != len(p) || err != nil {
			t.Fatal(n, err)
		}
	}
	return out.Bytes()
}

// TestRoundTrip writes at random, packed or not at random, and reads in odd sizes.
func TestRoundTrip(t *testing.T) {
	source, noise := text(t), seeded(1<<20, 1)
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			pr, pw := io.Pipe()
			w, r := NewWriter(pw, Auto), NewReader(pr)
			var want []byte
			written := make(chan error, 1)
			go func() {
				for range 100 {
					p := randomPart(rnd, source, noise)
					want = append(want, p...)
					force(w, rnd.IntN(2) == 0)
					if n, err := w.Write(p); n != len(p) || err != nil {
						written <- fmt.Errorf("wrote %d of %d: %w", n, len(p), err)
						return
					}
				}
				written <- pw.Close()
			}()
			var got []byte
			sizes := rand.New(rand.NewPCG(seed, 2))
			for {
				b := make([]byte, 1+sizes.IntN(1<<sizes.IntN(20)))
				n, err := r.Read(b)
				got = append(got, b[:n]...)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := <-written; err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v; read %d bytes, wrote %d", err, len(got), len(want))
			}
			size := int64(len(want))
			if w.Raw() != size || r.Raw() != size || w.Wire() != r.Wire() || w.Wire() <= 0 {
				t.Errorf("writer %d, %d; reader %d, %d; %d bytes", w.Raw(), w.Wire(), r.Raw(), r.Wire(), len(want))
			}
		})
	}
}

// randomPart is something to write: text, noise, zeros or a mixture, of any size up to half a megabyte.
func randomPart(rnd *rand.Rand, source, noise []byte) []byte {
	n := rnd.IntN(1 << (1 + rnd.IntN(19)))
	from := func(b []byte, n int) []byte {
		n = min(n, len(b)-1)
		at := rnd.IntN(len(b) - n)
		return b[at : at+n]
	}
	switch rnd.IntN(4) {
	case 0:
		return from(source, n)
	case 1:
		return from(noise, n)
	case 2:
		return make([]byte, n)
	}
	return slices.Concat(from(noise, n/3), from(source, n/3), make([]byte, n/3))
}

// TestNothingIsHeldBack reads each write back before the next one is made, and no byte beyond it is there to be read.
func TestNothingIsHeldBack(t *testing.T) {
	source := text(t)
	for _, mode := range []Mode{Off, Always, Auto} {
		var between bytes.Buffer
		w, r := NewWriter(&between, mode), NewReader(&between)
		for _, n := range []int{1, 511, 512, 513, 4096, piece - 1, piece, piece + 1, 2*piece + 100, 3} {
			if _, err := w.Write(source[:n]); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, source[:n]) {
				t.Fatalf("mode %d, %d bytes: %v", mode, n, err)
			}
		}
	}
}

// TestModes counts the bytes on the wire.
func TestModes(t *testing.T) {
	source, noise := text(t)[:piece], seeded(piece, 1)
	for _, c := range []struct {
		mode        Mode
		data        []byte
		least, most int
	}{
		{Off, source, piece + headerSize, piece + headerSize},
		{Always, source, 1, piece / 2},
		{Auto, source, 1, piece / 2},
		{Always, noise, piece, piece + 32},
		{Always, source[:tooSmall-1], tooSmall - 1 + headerSize, tooSmall - 1 + headerSize},
		{Auto, source[:tooSmall-1], tooSmall - 1 + headerSize, tooSmall - 1 + headerSize},
		{Always, nil, 0, 0},
	} {
		var out bytes.Buffer
		w := NewWriter(&out, c.mode)
		if _, err := w.Write(c.data); err != nil || out.Len() < c.least || out.Len() > c.most {
			t.Errorf("mode %d, %d bytes: %d on the wire, want %d to %d; %v", c.mode, len(c.data), out.Len(), c.least,
				c.most, err)
		}
	}
}

// timed is a writer that moves a clock.
type timed struct {
	now  time.Time
	each time.Duration // for a byte
}

func (c *timed) Write(p []byte) (int, error) {
	c.now = c.now.Add(time.Duration(len(p)) * c.each)
	return len(p), nil
}

// TestAutoMeasures wires the policy: on a clock that only the link moves packing is free, so it pays off on a link
// that takes time and not on one that takes none.
func TestAutoMeasures(t *testing.T) {
	source := text(t)
	source = source[:len(source)/piece*piece]
	for _, c := range []struct {
		name   string
		each   time.Duration
		idle   time.Duration
		data   []byte
		packed bool
	}{
		{"slow", 80, 0, source, true}, {"fast", 0, 0, source, false},
		{"slow, noise", 80, 0, seeded(len(source), 1), false},
		{"seldom, which says nothing", 0, time.Second, source, true},
	} {
		below := &timed{now: time.Unix(0, 0), each: c.each}
		w := NewWriter(below, Auto)
		w.now = func() time.Time { return below.now }
		for w.Raw() < 32<<20 {
			below.now = below.now.Add(c.idle)
			if _, err := w.Write(c.data[w.Raw()%int64(len(c.data)):][:piece]); err != nil {
				t.Fatal(err)
			}
		}
		if share := float64(w.Wire()) / float64(w.Raw()); (share < 0.5) != c.packed {
			t.Errorf("%s: %.2f of the bytes on the wire", c.name, share)
		}
	}
}

var errBroken = errors.New("broken")

// failing passes writes on until one fails, after a part of it.
type failing struct {
	bytes.Buffer
	left, part int
	err        error
}

func (f *failing) Write(p []byte) (int, error) {
	if f.left--; f.left >= 0 {
		return f.Buffer.Write(p)
	}
	n, _ := f.Buffer.Write(p[:min(f.part, len(p)-1)])
	return n, f.err
}

// TestWriteErrors fails the first, second, third ... write.
func TestWriteErrors(t *testing.T) {
	source := text(t)[:5*piece+77]
	for _, part := range []int{0, 3, 1000} {
		for _, broken := range []error{errBroken, nil} {
			want := errBroken
			if broken == nil {
				want = io.ErrShortWrite
			}
			for nth := 0; ; nth++ {
				below := &failing{left: nth, part: part, err: broken}
				w := NewWriter(below, Always)
				n, err := w.Write(source)
				if err == nil {
					if nth != 6 {
						t.Errorf("%d writes were enough", nth)
					}
					break
				}
				if !errors.Is(err, want) || n != nth*piece || w.Raw() != int64(n) || w.Wire() != int64(below.Len()) {
					t.Fatalf("write %d: %d bytes, %v; counted %d, %d", nth, n, err, w.Raw(), w.Wire())
				}
				got, err := io.ReadAll(NewReader(&below.Buffer))
				if !bytes.Equal(got[:n], source[:n]) || part > 0 && err != io.ErrUnexpectedEOF {
					t.Fatalf("write %d: the other end read %d bytes, %v", nth, len(got), err)
				}
				below.left = 1
				if n, err := w.Write(source); n != 0 || !errors.Is(err, want) || below.left != 1 {
					t.Fatalf("afterwards: %d, %v", n, err)
				}
			}
		}
	}
}

// stuttering gives a few bytes with each read and fails at one of them, perhaps with bytes.
type stuttering struct {
	data        []byte
	step, left  int
	withTheLast bool
	err         error
}

func (s *stuttering) Read(p []byte) (int, error) {
	if s.left--; s.left < 0 && !s.withTheLast || len(s.data) == 0 {
		return 0, s.err
	}
	n := copy(p, s.data[:min(s.step, len(s.data))])
	s.data = s.data[n:]
	if s.left < 0 {
		return n, s.err
	}
	return n, nil
}

// TestReadErrors fails the first, second, third ... read.
func TestReadErrors(t *testing.T) {
	source := text(t)[:9000]
	data := stream(t, source[:3000], source[3000:6000], source[6000:])
	for _, with := range []bool{false, true} {
		for nth := 0; nth <= len(data)/7; nth++ {
			below := &stuttering{data: data, step: 7, left: nth, withTheLast: with, err: errBroken}
			r := NewReader(below)
			got, err := io.ReadAll(r)
			if !errors.Is(err, errBroken) || !bytes.HasPrefix(source, got) {
				t.Fatalf("read %d: %d bytes, %v", nth, len(got), err)
			}
			below.data, below.left = data, 1000
			if n, err := r.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errBroken) {
				t.Fatalf("afterwards: %d, %v", n, err)
			}
		}
	}
}

// TestTruncated cuts a stream after every byte.
func TestTruncated(t *testing.T) {
	source := text(t)
	parts := [][]byte{source[:700], source[700:1000], source[1000:2000]}
	data := stream(t, parts...)
	ends := map[int]int{0: 0} // the ends of chunks, and what comes before them
	for i := range parts {
		ends[len(stream(t, parts[:i+1]...))] = len(slices.Concat(parts[:i+1]...))
	}
	for n := range len(data) + 1 {
		r := NewReader(bytes.NewReader(data[:n]))
		var got []byte
		var err error
		for err == nil {
			b, m := make([]byte, 100), 0
			m, err = r.Read(b)
			got = append(got, b[:m]...)
		}
		whole, ended := ends[n]
		if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[ended]; err != want {
			t.Errorf("cut after %d: %v, want %v", n, err, want)
		}
		if ended && len(got) != whole || !bytes.HasPrefix(source, got) {
			t.Errorf("cut after %d: read %d bytes", n, len(got))
		}
		if _, again := r.Read(make([]byte, 1)); again != err {
			t.Errorf("cut after %d: %v, then %v", n, err, again)
		}
	}
}

// chunk makes a packed chunk by hand.
func chunk(decoded int, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, packedBit|uint32(len(payload)))
	b = binary.BigEndian.AppendUint32(b, uint32(decoded))
	return append(b, payload...)
}

// repeated is a zstd stream of so many blocks that each say: 128 KiB of one byte.
func repeated(blocks int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 8 << 3} // magic; no sizes, no checksum; a window of 256 KiB
	for range blocks {
		h := uint32(piece)<<3 | 1<<1
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 'x')
	}
	return b
}

// wide is a zstd frame with a window larger than ours.
func wide(t *testing.T) []byte {
	var out bytes.Buffer
	e, err := zstd.NewWriter(&out, zstd.WithWindowSize(2*window), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = e.Write([]byte("something"))
	_ = e.Flush()
	return out.Bytes()
}

func TestMalformed(t *testing.T) {
	good := chunk(8*piece, repeated(8))
	if got, err := io.ReadAll(NewReader(bytes.NewReader(good))); err != nil || len(got) != 8*piece {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	word := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for name, c := range map[string]struct {
		data  []byte
		gives int // bytes before the error
	}{
		"empty":              {word(0), 0},
		"empty, packed":      {slices.Concat(word(packedBit), word(1)), 0},
		"too long":           {word(maxChunk + 1), 0},
		"too long, packed":   {slices.Concat(word(packedBit|maxChunk+1), word(1)), 0},
		"to nothing":         {slices.Concat(word(packedBit|1), word(0), []byte{0}), 0},
		"to too much":        {chunk(9*piece, repeated(9)), 0},
		"more than said":     {chunk(8*piece-1, repeated(8)), 8 * piece},
		"less than said":     {chunk(8*piece, repeated(7)), 7 * piece},
		"a block more":       {chunk(7*piece, repeated(8)), 7 * piece},
		"no zstd":            {chunk(100, []byte("this is not compressed at all")), 0},
		"wide window":        {chunk(9, wide(t)), 0},
		"skippable":          {chunk(9, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0x7f, 1}), 0},
		"a dictionary":       {chunk(9, []byte{0x28, 0xb5, 0x2f, 0xfd, 1, 8 << 3, 7, 1, 0, 0}), 0},
		"a header, no block": {chunk(9, repeated(0)), 0},
	} {
		r := NewReader(bytes.NewReader(slices.Concat(c.data, good)))
		got, err := io.ReadAll(r)
		if !errors.Is(err, ErrMalformed) || errors.Is(err, io.EOF) || len(got) != c.gives {
			t.Errorf("%s: %d bytes, want %d; %v", name, len(got), c.gives, err)
		}
		if _, again := r.Read(make([]byte, 1)); again != err {
			t.Errorf("%s: %v, then %v", name, err, again)
		}
	}
}

// allocated runs f and gives the bytes that it has allocated and those that are still in use.
func allocated(f func()) (total, kept int64) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC() // what lay in pools goes with the second
	runtime.ReadMemStats(&before)
	f()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	return int64(after.TotalAlloc - before.TotalAlloc), int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// TestMemory holds the package comment to its numbers.
func TestMemory(t *testing.T) {
	source := text(t)
	stream(t, source[:piece]) // tables that are made once a process
	var out bytes.Buffer
	out.Grow(64 << 20)
	parts := slices.Concat(source, seeded(1<<20, 1), make([]byte, 1<<20))
	w := NewWriter(&out, Always)
	if _, kept := allocated(func() {
		for range 4 {
			if _, err := w.Write(parts); err != nil {
				t.Fatal(err)
			}
		}
	}); kept > 1500<<10 {
		t.Errorf("a Writer keeps %d KiB", kept>>10)
	} else {
		t.Logf("a Writer keeps %d KiB", kept>>10)
	}
	r := NewReader(&out)
	if _, kept := allocated(func() {
		if n, err := io.Copy(io.Discard, r); err != nil || n != w.Raw() {
			t.Fatal(n, err)
		}
	}); kept > 1000<<10 {
		t.Errorf("a Reader keeps %d KiB", kept>>10)
	} else {
		t.Logf("a Reader keeps %d KiB", kept>>10)
	}
	for _, kept := range []any{w, r, &out, parts, source} {
		runtime.KeepAlive(kept)
	}
}

// TestAnnouncedIsNotAllocated gives headers of large chunks with little behind them.
func TestAnnouncedIsNotAllocated(t *testing.T) {
	raw := append(binary.BigEndian.AppendUint32(nil, maxChunk), 'x')
	packed := binary.BigEndian.AppendUint32(nil, packedBit|maxChunk)
	packed = append(binary.BigEndian.AppendUint32(packed, maxChunk), repeated(1)...)
	for most, data := range map[int64][]byte{64 << 10: raw, 900 << 10: packed} {
		buf := make([]byte, 4096)
		total, _ := allocated(func() {
			r := NewReader(bytes.NewReader(data))
			for {
				if _, err := r.Read(buf); err != nil {
					if err != io.ErrUnexpectedEOF {
						t.Error(err)
					}
					return
				}
			}
		})
		if total > most {
			t.Errorf("%d bytes were allocated for %d that came, want %d at most", total, len(data), most)
		}
	}
}

// FuzzReader gives the Reader anything: it must end with a proper error, give the same in whatever sizes it is read,
// and never give more than its chunks may hold.
func FuzzReader(f *testing.F) {
	source := text(f)
	f.Add(stream(f, source[:700], source[700:1000], source[1000:2000]))
	f.Add(stream(f, seeded(600, 1), source[:10], make([]byte, 3000)))
	f.Add(chunk(2*piece, repeated(2)))
	f.Add(chunk(2*piece, repeated(3)))
	f.Add([]byte{0, 0, 0, 3, 'a', 'b', 'c', 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		var all [][]byte
		var errs []error
		for _, size := range []int{64 << 10, 4093} {
			r := NewReader(bytes.NewReader(data))
			var got []byte
			var err error
			buf := make([]byte, size)
			for err == nil {
				n := 0
				n, err = r.Read(buf)
				got = append(got, buf[:n]...)
				if len(got) > maxChunk*(1+len(data)/headerSize) {
					t.Fatalf("%d bytes of %d", len(got), len(data))
				}
			}
			if errors.Is(err, ErrMalformed) == (err == io.EOF || err == io.ErrUnexpectedEOF) {
				t.Fatal(err)
			}
			if err == io.EOF && r.Wire() != int64(len(data)) || r.Raw() != int64(len(got)) {
				t.Fatalf("counted %d, %d of %d, %d", r.Wire(), r.Raw(), len(data), len(got))
			}
			all, errs = append(all, got), append(errs, err)
		}
		if !bytes.Equal(all[0], all[1]) || errors.Is(errs[0], ErrMalformed) != errors.Is(errs[1], ErrMalformed) {
			t.Fatalf("read %d bytes and %v, or %d and %v", len(all[0]), errs[0], len(all[1]), errs[1])
		}
	})
}

// mixed is many files of 4 KiB with what is said of each: every second one noise if so wanted.
func mixed(source []byte, noisy bool) []byte {
	noise, rnd := seeded(1<<20, 2), rand.New(rand.NewPCG(1, 1))
	var out []byte
	for i := 0; len(out) < 4<<20; i++ {
		out = fmt.Appendf(out, "\x00\x00\x00\xaa\x13pkg/component%d/file_%d.go", rnd.IntN(40), i)
		out = append(out, noise[rnd.IntN(1<<19):][:40]...)
		out = append(out, "\x01\xa4\x83\x02\x0duser.checksum\x10"...)
		out = append(out, noise[rnd.IntN(1<<19):][:16]...)
		if from := source; noisy && i%2 == 0 {
			out = append(out, noise[rnd.IntN(1<<19):][:4096]...)
		} else {
			out = append(out, from[rnd.IntN(len(from)-4096):][:4096]...)
		}
	}
	return out
}

// Benchmark gives the speed of packing or unpacking, and the ratio.
func Benchmark(b *testing.B) {
	source := text(b)
	for _, c := range []struct {
		name string
		data []byte
	}{{"text", source}, {"small", mixed(source, false)}, {"mixed", mixed(source, true)}, {"random", seeded(4<<20, 1)}} {
		var packed bytes.Buffer
		pack := func(w *Writer) {
			for p := c.data; len(p) > 0; p = p[min(len(p), 2*piece):] {
				if _, err := w.Write(p[:min(len(p), 2*piece)]); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(c.name+"/pack", func(b *testing.B) {
			w := NewWriter(io.Discard, Always)
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				pack(w)
			}
			b.ReportMetric(float64(w.Raw())/float64(w.Wire()), "ratio")
		})
		pack(NewWriter(&packed, Always))
		b.Run(c.name+"/unpack", func(b *testing.B) {
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				if _, err := io.Copy(io.Discard, NewReader(bytes.NewReader(packed.Bytes()))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
