package slavetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/delta"
)

func uploadCases() []testCase {
	return []testCase{
		{"an upload in any order, twice and with holes becomes the file", uploadWhole},
		{"what is received is told, and what is missing is asked for", uploadInPart},
		{"parts of the basis are copied", uploadFromBasis},
		{"what was received of another version is a basis", uploadOfAnotherVersion},
		{"an upload reaches all names of an inode", uploadLinked},
		{"malformed uploads are refused", uploadMalformed},
		{"what nobody sends any more is cleaned up", uploadForgotten},
	}
}

func (f *Fixture) begin(n int, version byte, size int64, basis string) slave.UploadState {
	f.Helper()
	state, err := f.Tree.Begin(f.Context(), &slave.Upload{GFID: GFID(n), Version: slave.Version{version}, Size: size, Basis: basis})
	if err != nil {
		f.Fatal(err)
	}
	return state
}

func (f *Fixture) write(n int, version byte, off, end int64, parts ...slave.Part) error {
	f.Helper()
	r, err := f.Tree.Write(f.Context(), &slave.Segment{GFID: GFID(n), Version: slave.Version{version},
		Range: slave.Range{Off: off, End: end}, Parts: parts})
	if err != nil {
		f.Fatal(err)
	}
	return r.Err
}

func (f *Fixture) mustWrite(n int, version byte, off, end int64, parts ...slave.Part) {
	f.Helper()
	if err := f.write(n, version, off, end, parts...); err != nil {
		f.Fatal(err)
	}
}

// uploaded is the operation that publishes an upload.
func uploaded(path string, rec slave.Record, version byte, size int64) slave.Op {
	op := Put(path, rec, "")
	op.Open, op.Uploaded, op.Version, op.Meta.Size = nil, true, slave.Version{version}, size
	return op
}

func random(n int, seed uint64) []byte {
	b, rnd := make([]byte, n), rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	return b
}

func uploadWhole(f *Fixture) {
	const size = 4 << 20
	text := random(size, 1)
	clear(text[1<<20 : 2<<20]) // a hole
	if s := f.begin(1, 1, size, ""); s.Err != nil || len(s.Have) != 0 || s.BlockSize != 0 {
		f.Fatalf("%+v", s)
	}
	step := int64(512 << 10)
	for _, i := range append(rand.New(rand.NewPCG(1, 2)).Perm(8), 3, 0) {
		off := int64(i) * step
		if i == 2 || i == 3 {
			f.mustWrite(1, 1, off, off+step)
			continue
		}
		mid := off + 1000
		f.mustWrite(1, 1, off, off+step, slave.Part{Off: off, Data: text[off:mid]}, slave.Part{Off: mid, Data: text[mid : off+step]})
	}
	if s := f.begin(1, 1, size, ""); fmt.Sprint(s.Have) != fmt.Sprint([]slave.Range{{End: size}}) {
		f.Fatalf("%+v", s)
	}
	f.Must(uploaded("file", Rec(1, 5), 1, size))
	f.Content("file", string(text))
	st := f.Stat("file")
	if st.Blocks*512 > size-(1<<20)+(64<<10) || st.Mode&0o7777 != uint32(MetaOf(0o644).Mode) {
		f.Fatalf("%d blocks, mode %o", st.Blocks, st.Mode)
	}
	if f.Record("file") != Rec(1, 5) {
		f.Fatalf("record %v", f.Record("file"))
	}
	f.areaEmpty("partial")
	f.StagingEmpty()
	f.Fails(uploaded("file", Rec(1, 6), 1, size), slave.ErrNeedContent)
	f.Content("file", string(text))
	f.begin(2, 1, 0, "")
	f.Must(uploaded("empty", Rec(2, 1), 1, 0))
	f.Content("empty", "")
}

func uploadInPart(f *Fixture) {
	f.begin(1, 1, 100, "")
	f.mustWrite(1, 1, 10, 20, slave.Part{Off: 12, Data: []byte("3456")})
	f.mustWrite(1, 1, 50, 60)
	f.mustWrite(1, 1, 60, 70)
	f.mustWrite(1, 1, 30, 30)
	want := []slave.Range{{Off: 10, End: 20}, {Off: 50, End: 70}}
	if s := f.begin(1, 1, 100, ""); fmt.Sprint(s.Have) != fmt.Sprint(want) {
		f.Fatalf("%+v", s)
	}
	f.Fails(uploaded("file", Rec(1, 1), 1, 100), slave.ErrNeedContent)
	f.Fails(uploaded("file", Rec(9, 1), 1, 100), slave.ErrNeedContent)
	f.Gone("file")
	f.mustWrite(1, 1, 0, 10)
	f.mustWrite(1, 1, 15, 55, slave.Part{Off: 20, Data: []byte("x")}) // over what was there
	f.mustWrite(1, 1, 70, 100, slave.Part{Off: 99, Data: []byte("y")})
	f.Must(uploaded("file", Rec(1, 1), 1, 100))
	whole := make([]byte, 100)
	copy(whole[12:], "345")
	whole[20], whole[99] = 'x', 'y'
	b, err := os.ReadFile(f.Path("file"))
	if err != nil || len(b) != 100 || b[20] != 'x' || b[99] != 'y' || string(b[12:15]) != "345" {
		f.Fatalf("%q, %v", b, err)
	}
}

func uploadFromBasis(f *Fixture) {
	if f.NoBasis {
		f.Must(Put("file", Rec(1, 1), strings.Repeat("x", 4096)))
		if s := f.begin(2, 3, 3<<20, "file"); s.Err != nil || s.BlockSize != 0 {
			f.Fatalf("%+v", s)
		}
		return
	}
	old := random(1<<20, 7)
	f.Must(Put("file", Rec(1, 1), string(old)))
	s := f.begin(2, 3, 3<<20, "file")
	if s.Err != nil || s.BasisSize != 1<<20 || s.BlockSize != delta.BlockSize(1<<20) {
		f.Fatalf("%+v", s)
	}
	for _, which := range []delta.Which{delta.Both, delta.OnlyStrong, delta.OnlyWeak} {
		f.signed(old, which)
	}
	q := slave.SumsQuery{GFID: GFID(2), Version: slave.Version{3}, Which: uint8(delta.OnlyWeak + 1)}
	if r, err := f.Tree.Sums(f.Context(), q, func(int64, []byte) error { return nil }); err != nil || !errors.Is(r.Err, slave.ErrInvalid) {
		f.Fatalf("a signature of no known kind: %v, %v", r.Err, err)
	}
	f.mustWrite(2, 3, 0, 2<<20, slave.Part{Off: 100, Data: []byte("new")}, slave.Part{Off: 1 << 20, Len: 1 << 20})
	f.mustWrite(2, 3, 2<<20, 3<<20, slave.Part{Off: 2 << 20, Len: 1<<20 - 5, From: 5})
	if err := f.write(2, 3, 0, 1<<20, slave.Part{Len: 1 << 20, From: 1}); !errors.Is(err, slave.ErrInvalid) {
		f.Fatalf("beyond the basis: %v", err)
	}
	f.Must(uploaded("file", Rec(2, 1), 3, 3<<20))
	text := make([]byte, 3<<20)
	copy(text[100:], "new")
	copy(text[1<<20:], old)
	copy(text[2<<20:], old[5:])
	f.Content("file", string(text))
	// Somebody writes to the basis meanwhile: its blocks are not what their signature says.
	f.begin(3, 1, 10, "file")
	if err := os.WriteFile(f.Path("file"), bytes.Repeat([]byte("z"), 1000), 0o644); err != nil {
		f.Fatal(err)
	}
	if err := f.write(3, 1, 0, 10, slave.Part{Len: 10}); !errors.Is(err, slave.ErrConflict) {
		f.Fatalf("a basis that was changed: %v", err)
	}
}

// signed checks the signature of the upload's basis.
func (f *Fixture) signed(basis []byte, which delta.Which) {
	f.Helper()
	q := slave.SumsQuery{GFID: GFID(2), Version: slave.Version{3}, Key: delta.NewKey(), Which: uint8(which)}
	var blocks, want []delta.Block
	r, err := f.Tree.Sums(f.Context(), q, func(first int64, sums []byte) (err error) {
		if first != int64(len(blocks)) {
			return fmt.Errorf("block %d after %d", first, len(blocks))
		}
		blocks, err = which.ParseBlocks(blocks, sums)
		return err
	})
	werr := delta.Signer{Key: q.Key, Shape: delta.NewShape(int64(len(basis))), Basis: bytes.NewReader(basis), Which: which,
		Emit: func(_ int64, b []delta.Block) error { want = append(want, b...); return nil }}.Sign(f.Context())
	if err != nil || werr != nil || r.Err != nil || fmt.Sprint(blocks) != fmt.Sprint(want) {
		f.Fatalf("%d blocks, want %d: %v, %v, %v", len(blocks), len(want), r.Err, err, werr)
	}
}

func uploadOfAnotherVersion(f *Fixture) {
	f.begin(1, 1, 8192, "")
	text := random(4096, 3)
	f.mustWrite(1, 1, 0, 4096, slave.Part{Data: text})
	s := f.begin(1, 2, 8192, "no/such/basis")
	if f.NoBasis {
		if err := f.write(1, 1, 0, 1, slave.Part{Data: []byte("x")}); !errors.Is(err, slave.ErrNeedContent) || len(s.Have) != 0 {
			f.Fatalf("a version that is given up: %v, %+v", err, s)
		}
		return
	}
	if s.Err != nil || len(s.Have) != 0 || s.BasisSize != 4096 {
		f.Fatalf("%+v", s)
	}
	if err := f.write(1, 1, 0, 1, slave.Part{Data: []byte("x")}); !errors.Is(err, slave.ErrNeedContent) {
		f.Fatalf("a version that is given up: %v", err)
	}
	f.mustWrite(1, 2, 0, 4096, slave.Part{Len: 2048, From: 2048})
	f.mustWrite(1, 2, 4096, 8192, slave.Part{Off: 4096, Len: 4096})
	f.Must(uploaded("file", Rec(1, 2), 2, 8192))
	f.Content("file", string(text[2048:])+string(make([]byte, 2048))+string(text))
	f.areaEmpty("partial")
}

func uploadLinked(f *Fixture) {
	group(f)
	f.begin(1, 1, 3, "a")
	f.mustWrite(1, 1, 0, 3, slave.Part{Data: []byte("new")})
	f.Must(Linked(uploaded("b", Rec(1, 2), 1, 3), 3))
	f.SameInode("a", "b", "d/c")
	f.Content("a", "new")
}

func uploadMalformed(f *Fixture) {
	f.begin(1, 1, 100, "")
	for name, err := range map[string]error{
		"beyond the end":        f.write(1, 1, 50, 101),
		"backwards":             f.write(1, 1, 50, 49),
		"part before":           f.write(1, 1, 50, 60, slave.Part{Off: 49, Data: []byte("x")}),
		"part behind":           f.write(1, 1, 50, 60, slave.Part{Off: 60, Data: []byte("x")}),
		"part over the end":     f.write(1, 1, 50, 60, slave.Part{Off: 59, Data: []byte("xy")}),
		"parts that overlap":    f.write(1, 1, 50, 60, slave.Part{Off: 50, Data: []byte("xy")}, slave.Part{Off: 51, Data: []byte("x")}),
		"a basis without one":   f.write(1, 1, 50, 60, slave.Part{Off: 50, Len: 1}),
		"numbers that overflow": f.write(1, 1, 50, 60, slave.Part{Off: 50, Len: 1<<63 - 1, From: 1<<63 - 1}),
	} {
		if !errors.Is(err, slave.ErrInvalid) {
			f.Errorf("%s: %v", name, err)
		}
	}
	for name, u := range map[string]slave.Upload{
		"no inode":    {Size: 1},
		"a way out":   {GFID: GFID(1), Basis: "../x"},
		"what is not": {GFID: GFID(1), Basis: slave.Reserved + "/owner"},
	} {
		if s, err := f.Tree.Begin(f.Context(), &u); err != nil || !errors.Is(s.Err, slave.ErrInvalid) {
			f.Errorf("%s: %v, %v", name, s.Err, err)
		}
	}
	f.Must(Mkdir("dir", Rec(5, 0)))
	if s := f.begin(3, 1, 1, "dir"); s.Err != nil || s.BlockSize != 0 {
		f.Errorf("a directory as basis: %+v", s)
	}
	// What somebody planted in place of a partial file is not written to.
	f.begin(4, 1, 3, "")
	if err := os.WriteFile(f.Path("victim"), []byte("keep"), 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Link(f.Path("victim"), f.Path(".georep/partial/"+GFID(6).String())); err != nil {
		f.Fatal(err)
	}
	f.begin(6, 1, 3, "")
	f.mustWrite(6, 1, 0, 3, slave.Part{Data: []byte("new")})
	f.Content("victim", "keep")
	if err := os.Symlink("../../victim", f.Path(".georep/partial/"+GFID(7).String())); err != nil && !errors.Is(err, unix.EEXIST) {
		f.Fatal(err)
	}
	f.begin(7, 1, 3, "")
	f.mustWrite(7, 1, 0, 3, slave.Part{Data: []byte("new")})
	f.Content("victim", "keep")
}

func uploadForgotten(f *Fixture) {
	f.begin(1, 1, 10, "")
	f.mustWrite(1, 1, 0, 5, slave.Part{Data: []byte("12345")})
	if err := f.Tree.Clean(f.Context(), 3600); err != nil {
		f.Fatal(err)
	}
	if s := f.begin(1, 1, 10, ""); len(s.Have) != 1 {
		f.Fatalf("cleaned too early: %+v", s)
	}
	if err := f.Tree.Clean(f.Context(), -1); err != nil {
		f.Fatal(err)
	}
	f.areaEmpty("partial")
	if s := f.begin(1, 1, 10, ""); len(s.Have) != 0 {
		f.Fatalf("%+v", s)
	}
}
