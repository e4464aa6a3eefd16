package delta

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestEdges encodes files with the same, and similar, content. Beside the content of the result, which encode checks,
// each says how many bytes may be sent as data.
func TestEdges(t *testing.T) {
	const b = 4096
	basis := random(40*b+1234, 1)
	whole := basis[:40*b]
	tail := basis[40*b:]
	changed := bytes.Clone(basis)
	changed[17*b+5] ^= 1
	small := random(100, 2)
	repeated := bytes.Repeat(random(b, 3), 40)
	tests := []struct {
		name       string
		basis, new []byte
		data       int64
	}{
		{"both empty", nil, nil, 0},
		{"empty basis", nil, basis, int64(len(basis))},
		{"empty new", basis, nil, 0},
		{"the same", basis, basis, 0},
		{"the same, whole blocks", whole, whole, 0},
		{"the same, shorter than a block", small, small, 0},
		{"small new", basis, small, 100},
		{"small basis, first", small, concat(small, basis), int64(len(basis))},
		{"small basis, last", small, concat(basis, small), int64(len(basis))},
		{"one byte before", basis, concat([]byte{1}, basis), 1},
		{"one byte less", basis, basis[1:], b - 1},
		{"one byte after", basis, concat(basis, []byte{1}), 1},
		{"one byte after whole blocks", whole, concat(whole, []byte{1}), 1},
		{"last byte gone", basis, basis[:len(basis)-1], int64(len(tail)) - 1},
		{"last byte of whole blocks gone", whole, whole[:len(whole)-1], b - 1},
		{"a block less", basis, basis[b:], 0},
		{"a block more", basis, concat(random(b, 4), basis), b},
		{"a byte changed", basis, changed, b},
		{"block and a byte less", basis, basis[b+1:], b - 1},
		{"block but for a byte less", basis, basis[b-1:], 1},
		{"all different", basis, random(len(basis), 5), int64(len(basis))},
		{"twice", basis, concat(basis, basis), 0},
		{"twice, whole", whole, concat(whole, whole), 0},
		{"halves swapped", whole, concat(whole[20*b:], whole[:20*b]), 0},
		{"halves swapped, odd", basis, concat(basis[20*b+7:], basis[:20*b+7]), 2 * b},
		{"short block in the middle", basis, concat(basis, random(10*b, 6)), 10 * b},
		{"short block alone", basis, tail, 0},
		{"short block moved to the end", basis, concat(random(333, 7), tail), 333},
		{"short block moved to the end, in a longer run", basis, concat(random(b-234, 7), tail), b - 234},
		{"short block in place after others", basis, concat(bytes.Repeat(basis[:b], 40), tail, random(3*b, 4)), 3 * b},
		{"truncated to a block", basis, basis[:b], 0},
		{"truncated to less", basis, basis[:b-1], b - 1},
		{"repeated blocks", repeated, repeated, 0},
		{"repeated blocks, shifted", repeated, repeated[100:], 2 * b},
		{"more repeated blocks", repeated, concat(repeated, []byte{1}, repeated, repeated), 1},
	}
	for _, tt := range tests {
		for _, cut := range []int{1, 1000, b, 1 << 20} {
			if cut == 1 && len(tt.new) > 50*b {
				continue
			}
			t.Run(fmt.Sprint(tt.name, "/", cut), func(t *testing.T) {
				r := encode(t, signed(t, tt.basis, b), tt.basis, pieces(tt.new, cut))
				if r.data > tt.data {
					t.Errorf("%d bytes of data, %d suffice", r.data, tt.data)
				}
			})
		}
	}
}

// TestBlockBoundaries changes lengths by one around multiples of the block length, of the literals' bound and of the
// buffer.
func TestBlockBoundaries(t *testing.T) {
	const b = 2048
	content := random(2*(MaxData+b)+MaxData+5*b, 8)
	for _, around := range []int{b, 2 * b, MaxData, MaxData + b, 2 * (MaxData + b)} {
		for _, n := range []int{around - 1, around, around + 1} {
			for _, m := range []int{around - 1, around, around + 1} {
				encode(t, signed(t, content[:m], b), content[:m], pieces(content[:n], 1<<20))
				encode(t, signed(t, content[:m], b), content[:m], pieces(content[3:n], 1<<20))
				other := random(n, 9)
				encode(t, signed(t, content[:m], b), content[:m], pieces(concat(other, content[:m], other), 70_001))
			}
		}
	}
}

// TestMerged expects one instruction for what lies side by side in both files, up to MaxCopy, and data in full runs.
func TestMerged(t *testing.T) {
	basis := random(MaxCopy+MaxData, 10)
	r := encode(t, signed(t, basis, usualBlockSize), basis, pieces(basis, MaxData))
	if len(r.list) != 2 || r.list[0].Len != MaxCopy {
		t.Errorf("%d instructions, the first of %d bytes", len(r.list), r.list[0].Len)
	}
	r = encode(t, signed(t, nil, 2048), nil, pieces(basis[:10*MaxData], 5000))
	if len(r.list) > 11 {
		t.Errorf("%d instructions for 10 times the most data of one", len(r.list))
	}
}

// TestEqualBlocks expects that of equal blocks the one in place is taken, then the one that is shifted like the last.
func TestEqualBlocks(t *testing.T) {
	const b = 2048
	a, c := random(b, 11), random(b, 12)
	basis := concat(a, a, c, a, a, a, c, a)
	new := bytes.Clone(basis)
	new[2*b+1] ^= 1 // after that, rolling finds the fourth
	r := encode(t, signed(t, basis, b), basis, pieces(new, 999))
	if r.data != b || len(r.list) != 3 || r.list[2].From != 3*b {
		t.Errorf("not in place: %v", origins(r))
	}
	shifted := concat([]byte("xyz"), new)
	r = encode(t, signed(t, basis, b), basis, pieces(shifted, 999))
	if r.data != b+3 || len(r.list) != 4 || r.list[3].From != 3*b {
		t.Errorf("not shifted alike: %v", origins(r))
	}
}

// TestEqualBlockInPlace expects the one in place before the one that is shifted like the last.
func TestEqualBlockInPlace(t *testing.T) {
	const b = 2048
	a, c := random(b, 11), random(b, 12)
	basis := concat(a, c, random(b, 13), a, a, a)
	new := concat(c, random(2*b, 14), a)
	r := encode(t, signed(t, basis, b), basis, pieces(new, 999))
	if r.data != 2*b || len(r.list) != 3 || r.list[2].From != 3*b {
		t.Errorf("not in place: %v", origins(r))
	}
}

func origins(r result) (s []string) {
	for _, i := range r.list {
		if i.Data == nil {
			s = append(s, fmt.Sprintf("%d+%d<-%d", i.Off, i.Len, i.From))
		} else {
			s = append(s, fmt.Sprintf("%d+%d data", i.Off, i.Len))
		}
	}
	return s
}

// TestZerosAreLinear gives 100 MiB of zeros, of which all blocks are equal, at any shift: each byte is hashed a fixed
// number of times.
func TestZerosAreLinear(t *testing.T) {
	zeros := make([]byte, 24<<20)
	x := signed(t, zeros, 8192)
	for _, tt := range []struct {
		name string
		new  []byte
		data int64
	}{
		{"same", zeros, 0},
		{"shifted", concat([]byte{1}, zeros), 1},
		{"shorter", zeros[1:], 8191},
		{"interrupted", concat(zeros[:1<<20], []byte{1}, zeros[:1<<20], []byte{2}, zeros[:5000]), 8192},
	} {
		r := encode(t, x, zeros, pieces(tt.new, 1<<20))
		if r.hashed > 3*int64(len(tt.new)) {
			t.Errorf("%s: hashed %d bytes of %d", tt.name, r.hashed, len(tt.new))
		}
		if r.data > tt.data {
			t.Errorf("%s: %d bytes of data", tt.name, r.data)
		}
	}
}

// TestWeakCollisions has blocks in the index that have the weak sum of a block of the new file and another strong sum:
// they are not taken, the right one among them is, and each position costs one strong sum however many there are.
func TestWeakCollisions(t *testing.T) {
	const b, n = 2048, 50_000
	content := random(3*b, 13)
	s, err := newSums(testKey)
	if err != nil {
		t.Fatal(err)
	}
	right := Block{Weak: s.weak(content[b : 2*b]), Strong: s.strong(content[b : 2*b])}
	for _, has := range []bool{false, true} {
		blocks := make([]Block, n)
		for i := range blocks {
			blocks[i] = Block{Weak: right.Weak, Strong: [StrongSize]byte(random(StrongSize, uint64(i)))}
		}
		basis := make([]byte, n*b)
		if has {
			blocks[n/2] = right
			copy(basis[n/2*b:], content[b:2*b])
		}
		x, err := NewIndex(testKey, Shape{Size: n * b, Block: b}, n)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.Add(0, blocks); err != nil {
			t.Fatal(err)
		}
		r := encode(t, x, basis, pieces(content, 1000))
		want := int64(0)
		if has {
			want = b
		}
		if r.copied != want {
			t.Errorf("%d bytes copied, expected %d", r.copied, want)
		}
		if r.hashed > 8*b {
			t.Errorf("hashed %d bytes", r.hashed)
		}
	}
}

// TestHoles keeps holes out of the instructions and finds the data between them in place all the same.
func TestHoles(t *testing.T) {
	const b = 64 << 10
	size := 200 * b
	basis := make([]byte, size)
	var all []piece
	r := rand.New(rand.NewPCG(1, 2))
	for off := 0; off < size; {
		off += 4096 * (1 + r.IntN(60))
		n := min(4096*(1+r.IntN(20)), size-off)
		if n <= 0 {
			break
		}
		copy(basis[off:off+n], random(n, uint64(off)))
		all = append(all, piece{int64(off), bytes.Clone(basis[off : off+n])})
		off += n
	}
	x := signed(t, basis, b)
	if got := encode(t, x, basis, all); got.data != 0 {
		t.Errorf("%d bytes of data of an unchanged sparse file", got.data)
	}
	// One extent changed costs the blocks that it touches, and what else is data in them.
	all[20].data[0] ^= 1
	if got := encode(t, x, basis, all); got.data == 0 || got.data > 2*b {
		t.Errorf("%d bytes of data after one change", got.data)
	}
	// A hole that was inserted is not copied over, though the basis goes on.
	inserted := []piece{{0, basis[:3*b]}, {10 * b, basis[3*b : 5*b]}, {20 * b, basis[5*b : 6*b]}}
	if got := encode(t, x, basis, inserted); got.data != 0 || len(got.list) != 3 {
		t.Errorf("%d bytes of data after holes were inserted: %v", got.data, origins(got))
	}
	// Empty pieces say nothing.
	encode(t, x, basis, append([]piece{{0, nil}, {1, nil}}, all...))
	// A hole where the basis has data is a hole.
	encode(t, signed(t, random(size, 14), b), random(size, 14), all)
}

// TestManyHoles has data of one byte with holes of one byte, which is slow to say but must not be slow to find.
func TestManyHoles(t *testing.T) {
	const b = 8192
	basis := make([]byte, 20*b)
	var all []piece
	for i := 0; i < len(basis); i += 2 {
		basis[i] = byte(i>>9) + 1
		all = append(all, piece{int64(i), basis[i : i+1]})
	}
	x := signed(t, basis, b)
	r := encode(t, x, basis, all)
	if r.data != 0 || r.hashed > 3*int64(len(basis)) {
		t.Errorf("%d bytes of data, %d hashed", r.data, r.hashed)
	}
	encode(t, x, basis, all[1000:])
}

// TestTailBeforeHole takes the short last block also where the new file goes on with a hole.
func TestTailBeforeHole(t *testing.T) {
	const b = 4096
	basis := random(3*b+100, 15)
	x := signed(t, basis, b)
	for _, after := range []int64{int64(len(basis)) + 1, 4 * b, 100 * b, 1 << 40} {
		more := random(50, 16)
		r := encode(t, x, basis, []piece{{0, basis}, {after, more}})
		if r.data != 50 {
			t.Errorf("data again at %d: %d bytes sent", after, r.data)
		}
	}
	// And where it moved with nothing before it that matches.
	r := encode(t, x, basis, []piece{{7, concat(random(b+7, 17), basis[3*b:])}, {1 << 40, []byte{1}}})
	if r.data != b+7+1 {
		t.Errorf("%d bytes sent", r.data)
	}
}

// TestHighestOffset has data up to the largest offset that there is.
func TestHighestOffset(t *testing.T) {
	for _, b := range []int{2048, 2047, 1} {
		basis := random(10*b+b/2, 18)
		for _, n := range []int{1, b - 1, b, b + 1, 3 * b, len(basis)} {
			if n < 1 {
				continue
			}
			data := basis[len(basis)-n:]
			all := []piece{{0, basis[:1]}, {math.MaxInt64 - int64(n), data}}
			encode(t, signed(t, basis, b), basis, all)
			encode(t, signed(t, nil, b), nil, all)
			if half := n / 2; half > 3 {
				all = append(all[:1], piece{all[1].off, data[:half-3]}, piece{all[1].off + int64(half), data[half:]})
				encode(t, signed(t, basis, b), basis, all)
			}
		}
	}
	long := random(3*MaxData, 19)
	encode(t, signed(t, nil, 2048), nil, []piece{{math.MaxInt64 - int64(len(long)), long}})
}

// TestRandomEdits bounds what is sent by what was changed: the bytes themselves and two blocks for each edit.
func TestRandomEdits(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 20))
		basis := random(r.IntN(1<<20), seed)
		b := 1 << (8 + r.IntN(5))
		new := bytes.Clone(basis)
		edits, added := r.IntN(20), 0
		for range edits {
			at := r.IntN(len(new) + 1)
			n := r.IntN(3000)
			insert := random(n, r.Uint64()|1<<20)
			switch r.IntN(3) {
			case 0:
				new = concat(new[:at], insert, new[at:])
				added += n
			case 1:
				new = concat(new[:at], new[min(len(new), at+n):])
			default:
				added += copy(new[at:], insert)
			}
		}
		got := encode(t, signed(t, basis, b), basis, pieces(new, 1+r.IntN(100_000)))
		if limit := int64(added + (2*edits+1)*b); got.data > limit {
			t.Errorf("seed %d: %d edits, %d bytes of data, more than %d", seed, edits, got.data, limit)
		}
		if got.hashed > 3*int64(len(new)) {
			t.Errorf("seed %d: hashed %d bytes of %d", seed, got.hashed, len(new))
		}
	}
}

// TestReset encodes file after file with one encoder, after errors too.
func TestReset(t *testing.T) {
	a, b := random(100_000, 21), random(300_000, 22)
	e, err := NewEncoder(signed(t, a, 2048), source(pieces(a, 5000)))
	if err != nil {
		t.Fatal(err)
	}
	if r := drain(t, e, a, pieces(a, 5000)); r.data != 0 {
		t.Errorf("%d bytes sent", r.data)
	}
	boom := errors.New("boom")
	if err := e.Reset(signed(t, b, 8192), func() (int64, []byte, error) { return 0, nil, boom }); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Next(); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := e.Reset(signed(t, b, 4096), source(pieces(b, 7000))); err != nil {
		t.Fatal(err)
	}
	if r := drain(t, e, b, pieces(b, 7000)); r.data != 0 {
		t.Errorf("%d bytes sent", r.data)
	}
	// Made for one key, then used with another.
	x, err := NewIndex(Key{9}, NewShape(0), 1)
	if err != nil {
		t.Fatal(err)
	}
	if e, err = NewEncoder(x, source(nil)); err != nil {
		t.Fatal(err)
	}
	drain(t, e, nil, nil)
	if err := e.Reset(signed(t, a, 2048), source(pieces(a, 5000))); err != nil {
		t.Fatal(err)
	}
	if r := drain(t, e, a, pieces(a, 5000)); r.data != 0 {
		t.Errorf("%d bytes sent", r.data)
	}
}

// TestFalseTail has a signature that gives the short last block the sums of a full one, in place: it is not taken for
// one.
func TestFalseTail(t *testing.T) {
	const b = 2048
	basis := random(3*b+100, 31)
	x, err := NewIndex(testKey, Shape{Size: int64(len(basis)), Block: b}, 10)
	if err != nil {
		t.Fatal(err)
	}
	good := signed(t, basis, b)
	for n := range int64(4) {
		if err := x.Add(n, []Block{*good.block(n % 3)}); err != nil {
			t.Fatal(err)
		}
	}
	r := encode(t, x, basis, pieces(concat(random(3*b, 32), basis[:b]), 5000))
	if r.copied != b {
		t.Errorf("%v", origins(r))
	}
}

// TestSourceErrors fails the first, second, third ... read: the error comes through, stays, and what came before it is
// right.
func TestSourceErrors(t *testing.T) {
	basis := random(40_000, 23)
	new := concat([]byte("front"), basis[:20_000], random(9000, 24), basis[21_000:])
	all := append(pieces(new, 4000), piece{1 << 30, []byte("far")})
	x := signed(t, basis, 2048)
	for _, boom := range []error{errors.New("boom"), fmt.Errorf("truncated: %w", io.EOF), io.ErrUnexpectedEOF} {
		for n := range len(all) + 1 {
			inner, calls := source(all), 0
			e, err := NewEncoder(x, func() (int64, []byte, error) {
				if calls++; calls > n {
					return 0, nil, boom
				}
				return inner()
			})
			if err != nil {
				t.Fatal(err)
			}
			want := newCursor(all[:n])
			for err == nil {
				var i Instruction
				if i, err = e.Next(); err == nil {
					got := i.Data
					if got == nil {
						got = basis[i.From : i.From+i.Len]
					}
					want.take(t, i.Off, got)
				}
			}
			if err == io.EOF || !errors.Is(err, boom) {
				t.Fatalf("read %d: %v", n, err)
			}
			if _, again := e.Next(); again != err {
				t.Fatalf("read %d: then %v", n, again)
			}
			if calls != n+1 {
				t.Fatalf("read %d: %d reads", n, calls)
			}
		}
	}
}

// TestBadSource gives pieces that cannot be.
func TestBadSource(t *testing.T) {
	for _, all := range [][]piece{
		{{-1, []byte("x")}},
		{{5, []byte("abc")}, {7, []byte("x")}},
		{{5, []byte("abc")}, {0, []byte("x")}},
		{{math.MaxInt64, []byte("x")}},
		{{math.MinInt64, nil}},
	} {
		e, err := NewEncoder(signed(t, nil, 2048), source(all))
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = e.Next()
		}
		if err == io.EOF {
			t.Errorf("%v was taken", all)
		}
	}
}

// TestConcurrentEncoders shares one index.
func TestConcurrentEncoders(t *testing.T) {
	basis := random(500_000, 25)
	x := signed(t, basis, 2048)
	x.Seal()
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			new := concat(random(i*100, 26), basis)
			e, err := NewEncoder(x, source(pieces(new, 10_000)))
			if err != nil {
				t.Error(err)
				return
			}
			var sent int64
			for {
				in, err := e.Next()
				if err != nil {
					break
				}
				if in.Data != nil {
					sent += in.Len
				}
			}
			if sent != int64(i*100) {
				t.Errorf("encoder %d sent %d bytes", i, sent)
			}
		})
	}
	all.Wait()
}

// TestHoleInBasis encodes against a signature with gaps.
func TestHoleInBasis(t *testing.T) {
	const b = 2048
	basis := concat(random(5*b, 27), make([]byte, 50*b), random(5*b+3, 28))
	full := signed(t, basis, b)
	x, err := NewIndex(testKey, full.shape, MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	for n := range int64(61) {
		if n < 5 || n >= 55 {
			if err := x.Add(n, []Block{*full.block(n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r := encode(t, x, basis, []piece{{0, basis[:5*b]}, {55 * b, basis[55*b:]}}); r.data != 0 {
		t.Errorf("%d bytes sent", r.data)
	}
	if r := encode(t, x, basis, pieces(basis, 10_000)); r.data != 50*b {
		t.Errorf("%d bytes sent of a hole made of zeros", r.data)
	}
	if r := encode(t, x, basis, pieces(basis[10:], 10_000)); r.data != 51*b-10 {
		t.Errorf("%d bytes sent, shifted", r.data)
	}
}

// TestRandomStructures has short blocks, few different ones, many holes: everything that can follow on everything.
func TestRandomStructures(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 33))
		b := 1 + r.IntN(40)
		few := [][]byte{make([]byte, b), random(b, 1), random(b, 2), random(b/2, 3), random(1, 4)}
		var basis []byte
		for range r.IntN(60) {
			basis = append(basis, few[r.IntN(len(few))]...)
		}
		var all []piece
		off := int64(0)
		for range r.IntN(40) {
			data := few[r.IntN(len(few))]
			if k := r.IntN(4); k == 0 && len(basis) > 0 {
				from := r.IntN(len(basis))
				data = basis[from : from+r.IntN(len(basis)-from+1)]
			} else if k == 1 {
				off += int64(r.IntN(4 * b))
			}
			all = append(all, piece{off, data})
			off += int64(len(data))
		}
		encode(t, signed(t, basis, b), basis, all)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// FuzzReconstruct makes a new file out of random ranges of a basis and of the fuzzer's bytes, with holes.
func FuzzReconstruct(f *testing.F) {
	f.Add([]byte("basis basis basis basis"), []byte("\x10\x00\x05\x01\x20\x09new content"), uint16(4), uint16(7))
	f.Add(bytes.Repeat([]byte{0}, 300), bytes.Repeat([]byte{1, 0, 200}, 20), uint16(16), uint16(1))
	f.Add(random(1000, 29), random(100, 30), uint16(64), uint16(100))
	f.Fuzz(func(t *testing.T, basis, script []byte, block, cut uint16) {
		if len(basis) > 1<<16 || len(script) > 1<<12 {
			return
		}
		b := int(block%4096) + 1
		var all []piece
		off := int64(0)
		for len(script) >= 3 {
			kind, at, n := script[0], int(script[1])*len(basis)/256, int(script[2])
			script = script[3:]
			var data []byte
			switch kind % 4 {
			case 0:
				off += int64(at * n)
			case 1:
				data = basis[at:min(len(basis), at+n*b/8)]
			case 2:
				data = script[:min(n, len(script))]
				script = script[len(data):]
			default:
				off += int64(n)
				data = make([]byte, at)
			}
			for _, p := range pieces(data, int(cut)+1) {
				all = append(all, piece{off + p.off, p.data})
			}
			off += int64(len(data))
		}
		encode(t, signed(t, basis, b), basis, all)
	})
}
