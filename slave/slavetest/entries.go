package slavetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

func entryCases() []testCase {
	return []testCase{
		{"put makes and replaces a file with all its meta", putFile},
		{"empty and large files", sizes},
		{"holes stay holes", holes},
		{"a torn content has no xtime on record", torn},
		{"a broken source fails its operation alone", brokenSource},
		{"symbolic links, FIFOs and sockets", others},
		{"devices, owners and special modes as root", asRoot},
		{"mkdir makes, takes, and drops the stamp of another directory", mkdirs},
		{"meta on an entry whose content is right", metas},
		{"xattrs that leave no room", largeXattrs},
		{"operations that meet something else conflict", conflicts},
		{"malformed paths are refused", malformed},
		{"names with any byte, and of 255 bytes", names},
		{"paths longer than PATH_MAX", longPaths},
		{"a symbolic link at a parent is not followed", planted},
		{"batches under way at the same time", together},
	}
}

// together applies batches at the same time, small ones and ones with larger files, in rounds: what waited for the round
// before takes effect after it.
func together(f *Fixture) {
	for round := range 3 {
		var wg sync.WaitGroup
		text := func(i int) string { return strings.Repeat(fmt.Sprintf("%d of %d ", i, round), 20+i%3*40_000) }
		for i := range 12 {
			dir := fmt.Sprintf("d%d", i)
			batch := &slave.Batch{Ops: []slave.Op{Mkdir(dir, Rec(i, 1)), Put(dir+"/a", Rec(100+i, uint64(round+1)), text(i)),
				Put(dir+"/b", Rec(200+i, uint64(round+1)), "")}}
			wg.Go(func() {
				results, err := f.Tree.Apply(f.Context(), batch)
				for _, r := range results {
					err = errors.Join(err, r.Err)
				}
				if err != nil || len(results) != len(batch.Ops) {
					f.Errorf("batch %d: %d results, %v", i, len(results), err)
				}
			})
		}
		wg.Wait()
		for i := range 12 {
			f.Content(fmt.Sprintf("d%d/a", i), text(i))
			f.Content(fmt.Sprintf("d%d/b", i), "")
		}
	}
	f.StagingEmpty()
}

func putFile(f *Fixture) {
	for n, text := range []string{"one", "two and more", ""} {
		op := Put("a", Rec(1, uint64(n+1)), text)
		op.Meta.Mode = []uint32{0o644, 0o400, 0o777}[n]
		op.Meta.Mtime.Nsec += uint32(n)
		op.Meta.Xattrs = [][]slave.Xattr{{{Name: "user.x", Value: []byte("1")}}, {{Name: "user.y", Value: []byte{}}}, nil}[n]
		f.Must(op)
		f.Content("a", text)
		st := f.Stat("a")
		if st.Mode&0o7777 != op.Meta.Mode || !f.mtimeIs(st, op.Meta.Mtime) {
			f.Fatalf("round %d: mode %o, mtime %v", n, st.Mode, st.Mtim)
		}
		if got := f.xattrs("a"); !f.OnRecord && len(got) != len(op.Meta.Xattrs) || len(got) == 1 && got[0] != op.Meta.Xattrs[0].Name {
			f.Fatalf("round %d: xattrs %q", n, got)
		}
		if rec := f.Record("a"); rec != op.Record {
			f.Fatalf("round %d: record %v, want %v", n, rec, op.Record)
		}
		f.StagingEmpty()
	}
	f.Fails(Put("missing/a", Rec(2, 1), "x"), fs.ErrNotExist)
	f.StagingEmpty()
}

// largeXattrs applies xattrs that fill all that an ext4 gives an inode. The entry arrives, its record is kept, and a value
// that is not kept whole is named as lost.
func largeXattrs(f *Fixture) {
	value := []byte(strings.Repeat("v", 3990))
	xattrs := []slave.Xattr{{Name: "user.s", Value: []byte("s")}, {Name: "user.big", Value: value}}
	put, finish := Put("d/f", Rec(2, 1), "x"), Finish("d", Rec(1, 5), 1)
	put.Meta.Mode, put.Meta.Xattrs, finish.Meta.Xattrs = 0o444, xattrs, xattrs
	check := func(path string, rec slave.Record, lost slave.Lost) {
		f.Helper()
		buf := make([]byte, 8192)
		n, err := unix.Lgetxattr(f.Path(path), "user.big", buf)
		if kept := err == nil && string(buf[:n]) == string(value); kept != (lost&slave.LostXattr == 0) && !f.OnRecord {
			f.Fatalf("%s: lost %v, xattr of %d bytes, %v", path, lost, n, err)
		}
		if got := f.Record(path); got != rec {
			f.Fatalf("%s: on record as %v, want %v", path, got, rec)
		}
	}
	f.Must(Mkdir("d", Rec(1, 0)))
	res := append(f.Must(put), f.Must(finish)...)
	check("d/f", Rec(2, 1), res[0].Lost)
	check("d", Rec(1, 5), res[1].Lost)
	meta := put
	meta.Kind, meta.Expect, meta.Open, meta.Record = slave.OpMeta, GFID(2), nil, Rec(2, 2)
	again := f.Must(meta)
	check("d/f", Rec(2, 2), again[0].Lost)
	f.Must(Park("d", GFID(1)))
	f.Must(Unpark("e", Rec(1, 5)))
	check("e/f", Rec(2, 2), again[0].Lost)
	check("e", Rec(1, 5), res[1].Lost)
}

// xattrs lists an entry's user xattrs that are not our own.
func (f *Fixture) xattrs(path string) []string {
	f.Helper()
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(f.Path(path), buf)
	if err != nil {
		f.Fatal(err)
	}
	var all []string
	for name := range strings.SplitSeq(string(buf[:n]), "\x00") {
		if mine, ok := slave.MasterName(name); f.Faked && !ok {
			continue
		} else if f.Faked {
			name = mine
		}
		if strings.HasPrefix(name, "user.") && !strings.Contains(name, ".glusterfs.") {
			all = append(all, name)
		}
	}
	return all
}

func sizes(f *Fixture) {
	for n, size := range []int{0, 1, slave.MaxPiece - 1, slave.MaxPiece, slave.MaxPiece + 1, 9 << 20} {
		text := strings.Repeat("0123456789abcde\n", size/16+1)[:size]
		name := fmt.Sprint("f", n)
		f.Must(Put(name, Rec(n+1, 1), text))
		f.Content(name, text)
	}
}

func holes(f *Fixture) {
	const mib = 1 << 20
	block := []byte(strings.Repeat("x", 64<<10))
	op := Put("sparse", Rec(1, 1), "")
	op.Open = func() (slave.Content, error) {
		return &Memory{
			Pieces: []slave.Piece{{Off: 2 * mib, Data: block}, {Off: 5 * mib, Data: block}}, Ends: slave.End{Size: 8 * mib},
		}, nil
	}
	f.Must(op)
	file, err := os.Open(f.Path("sparse"))
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	end, _ := file.Seek(0, 2)
	first, _ := unix.Seek(int(file.Fd()), 0, unix.SEEK_DATA)
	hole, _ := unix.Seek(int(file.Fd()), first, unix.SEEK_HOLE)
	second, _ := unix.Seek(int(file.Fd()), hole, unix.SEEK_DATA)
	_, last := unix.Seek(int(file.Fd()), 5*mib+64<<10, unix.SEEK_DATA)
	if end != 8*mib || first != 2*mib || hole != 2*mib+64<<10 || second != 5*mib || !errors.Is(last, unix.ENXIO) {
		f.Fatalf("size %d, data at %d, hole at %d, data at %d, then %v", end, first, hole, second, last)
	}
}

func torn(f *Fixture) {
	f.Must(Put("a", Rec(1, 5), "whole"))
	op := Put("a", Rec(1, 6), "")
	op.Open = func() (slave.Content, error) {
		m := Text("torn")
		m.Ends.Torn = true
		return m, nil
	}
	if res := f.Must(op); !res[0].Torn {
		f.Fatal("the result does not say that the content is torn")
	}
	f.Content("a", "torn")
	if rec := f.Record("a"); rec != Rec(1, 0) {
		f.Fatalf("record %v of a torn file", rec)
	}
}

func brokenSource(f *Fixture) {
	f.Must(Put("b", Rec(2, 1), "old"))
	broken := Text("half of it")
	broken.Err = unix.EIO
	bad := Put("b", Rec(2, 2), "")
	bad.Open = func() (slave.Content, error) { return broken, nil }
	none := Put("c", Rec(3, 2), "")
	none.Open = func() (slave.Content, error) { return nil, fs.ErrPermission }
	res := f.Apply(Put("a", Rec(1, 1), "a"), bad, none, Put("d", Rec(4, 1), "d"))
	if res[0].Err != nil || res[3].Err != nil {
		f.Fatalf("those beside it: %v, %v", res[0].Err, res[3].Err)
	}
	if !errors.Is(res[1].Err, slave.ErrSource) || !errors.Is(res[1].Err, unix.EIO) {
		f.Fatalf("got %v, want ErrSource and EIO", res[1].Err)
	}
	if !errors.Is(res[2].Err, slave.ErrSource) {
		f.Fatalf("got %v, want ErrSource", res[2].Err)
	}
	f.Content("b", "old")
	f.Gone("c")
	f.StagingEmpty()
	if n := broken.Closed.Load(); n != 1 {
		f.Fatalf("the broken content was closed %d times", n)
	}
}

func others(f *Fixture) {
	link := slave.Op{Kind: slave.OpSymlink, Entry: slave.Symlink, Path: "l", Record: Rec(1, 1), Meta: MetaOf(0o777)}
	link.Meta.Target = "/nowhere/\xff\n"
	fifo := slave.Op{Kind: slave.OpNode, Entry: slave.Fifo, Path: "p", Record: Rec(2, 1), Meta: MetaOf(0o640)}
	sock := slave.Op{Kind: slave.OpNode, Entry: slave.Socket, Path: "s", Record: Rec(3, 1), Meta: MetaOf(0o755)}
	f.Must(link, fifo, sock)
	if target, err := os.Readlink(f.Path("l")); err != nil || target != link.Meta.Target {
		f.Fatalf("link to %q, %v", target, err)
	}
	_, entries := f.Survey("")
	for name, op := range map[string]slave.Op{"l": link, "p": fifo, "s": sock} {
		e := entries[name]
		if f.OnRecord {
			if e.Kind != op.Entry || e.Record != op.Record || e.Mtime != op.Meta.Mtime || e.Mode != op.Meta.Mode {
				f.Fatalf("%s: %+v", name, e)
			}
			continue
		}
		st := f.Stat(name)
		if e.Kind != op.Entry || st.Mtim.Sec != op.Meta.Mtime.Sec || op.Entry != slave.Symlink && e.Mode != op.Meta.Mode {
			f.Fatalf("%s: %+v", name, e)
		}
		carries := op.Entry.CarriesRecord(f.Tree.Info().Namespace)
		if carries && e.Record != op.Record || !carries && name == "l" && e.Target != link.Meta.Target {
			f.Fatalf("%s: %+v", name, e)
		}
	}
	link.Meta.Target, link.Record.Xtime = "elsewhere", Rec(1, 2).Xtime
	f.Must(link)
	if target, _ := os.Readlink(f.Path("l")); target != "elsewhere" {
		f.Fatalf("link to %q", target)
	}
	f.Must(Put("p", Rec(4, 1), "a file now"))
	f.Content("p", "a file now")
	f.StagingEmpty()
}

func asRoot(f *Fixture) {
	dev := slave.Op{Kind: slave.OpNode, Entry: slave.CharDev, Path: "null", Record: Rec(1, 1), Meta: MetaOf(0o600)}
	dev.Meta.Rdev = unix.Mkdev(1, 3)
	put := Put("suid", Rec(2, 1), "x")
	put.Meta.UID, put.Meta.GID, put.Meta.Mode = 1234, 5678, 0o6755
	res := f.Must(dev, put)
	if !f.Tree.Info().Root {
		f.Gone("null")
		if res[0].Lost != slave.LostDevice || res[1].Lost&(slave.LostOwner|slave.LostMode) != slave.LostOwner|slave.LostMode {
			f.Fatalf("lost: %v; %v", res[0].Lost, res[1].Lost)
		}
		if st := f.Stat("suid"); st.Mode&0o7777 != 0o755 {
			f.Fatalf("mode %o of a file of the wrong owner", st.Mode)
		}
		return
	}
	if _, entries := f.Survey(""); entries["null"].Rdev != dev.Meta.Rdev || entries["null"].Record != dev.Record {
		f.Fatalf("device %+v", entries["null"])
	}
	if f.OnRecord {
		f.Gone("null")
	} else if st := f.Stat("null"); st.Rdev != dev.Meta.Rdev {
		f.Fatalf("device %x", st.Rdev)
	}
	if st := f.Stat("suid"); st.Uid != 1234 || st.Gid != 5678 || st.Mode&0o7777 != 0o6755 {
		f.Fatalf("owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	meta := put
	meta.Kind, meta.Expect, meta.Record.Xtime, meta.Meta.UID = slave.OpMeta, GFID(2), Rec(2, 2).Xtime, 1235
	// Once only: a second time would mend what the first left.
	if r := f.Apply(meta); r[0].Err != nil {
		f.Fatal(r[0].Err)
	}
	if st := f.Stat("suid"); st.Uid != 1235 || st.Mode&0o7777 != 0o6755 {
		f.Fatalf("owner %d, mode %o after the owner changed", st.Uid, st.Mode)
	}
	if res[0].Lost|res[1].Lost != 0 && !f.OnRecord {
		f.Fatalf("lost: %v; %v", res[0].Lost, res[1].Lost)
	}
}

func mkdirs(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 9)), Mkdir("d/e", Rec(2, 9)), Put("d/e/a", Rec(3, 1), "a"))
	if rec := f.Record("d"); rec != Rec(1, 0) {
		f.Fatalf("record %v: a directory is stamped by its finish only", rec)
	}
	f.Must(Finish("d/e", Rec(2, 7), 1), Finish("d", Rec(1, 8), 1))
	f.Must(Mkdir("d", Rec(1, 0)))
	if rec := f.Record("d"); rec != Rec(1, 8) {
		f.Fatalf("record %v: the same directory keeps its stamp", rec)
	}
	another := Mkdir("d", Rec(4, 0))
	f.Fails(another, slave.ErrConflict) // the master has not seen the one that is there
	another.Expect = GFID(1)
	f.Must(another)
	if rec := f.Record("d"); rec != Rec(4, 0) {
		f.Fatalf("record %v: another directory has no stamp", rec)
	}
	f.Content("d/e/a", "a")
	f.Must(Put("file", Rec(5, 1), ""))
	f.Fails(Mkdir("file", Rec(6, 0)), slave.ErrConflict)
	f.Fails(Mkdir("no/where", Rec(6, 0)), fs.ErrNotExist)
	f.Must(Mkdir("", Rec(7, 0)))
	if rec := f.Record(""); rec != Rec(7, 0) {
		f.Fatalf("record %v of the root", rec)
	}
}

func metas(f *Fixture) {
	f.Must(Put("a", Rec(1, 1), "same"))
	if err := os.WriteFile(f.Path("b"), []byte("adopted"), 0o600); err != nil {
		f.Fatal(err)
	}
	meta := slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "a", Record: Rec(1, 2), Expect: GFID(1), Meta: MetaOf(0o440)}
	meta.Meta.Xattrs = []slave.Xattr{{Name: "user.new", Value: []byte("v")}}
	adopt := meta
	adopt.Path, adopt.Record, adopt.Expect = "b", Rec(2, 2), slave.Record{}.GFID
	f.Must(meta, adopt)
	for path, rec := range map[string]slave.Record{"a": meta.Record, "b": adopt.Record} {
		st := f.Stat(path)
		if st.Mode&0o7777 != 0o440 || !f.mtimeIs(st, meta.Meta.Mtime) || !f.OnRecord && len(f.xattrs(path)) != 1 || f.Record(path) != rec {
			f.Fatalf("%s: mode %o, mtime %v, xattrs %q, record %v", path, st.Mode, st.Mtim, f.xattrs(path), f.Record(path))
		}
	}
	// Another GFID in place of a known one, with another set of xattrs.
	other := meta
	other.Record, other.Expect, other.Meta.Xattrs, other.Meta.Mode = Rec(9, 3), GFID(1), nil, 0o644
	f.Must(other)
	if f.Record("a") != Rec(9, 3) || len(f.xattrs("a")) != 0 {
		f.Fatalf("record %v, xattrs %q", f.Record("a"), f.xattrs("a"))
	}
	f.Content("a", "same")
	wrong := meta
	wrong.Record, wrong.Expect = Rec(1, 4), GFID(5)
	f.Fails(wrong, slave.ErrConflict)
	wrong.Path = "none"
	f.Fails(wrong, fs.ErrNotExist)
	wrong.Path, wrong.Entry, wrong.Expect = "a", slave.Fifo, GFID(9)
	f.Fails(wrong, slave.ErrConflict)
	if f.Record("a") != Rec(9, 3) {
		f.Fatal("a refused operation changed the record")
	}
}

func conflicts(f *Fixture) {
	f.Must(Mkdir("d", Rec(1, 0)), Put("a", Rec(2, 1), "a"))
	f.Fails(Put("d", Rec(3, 1), "x"), slave.ErrConflict)
	f.Fails(Link("d", "a", Rec(2, 1), 2), slave.ErrConflict)
	f.Fails(Park("a", GFID(9)), slave.ErrConflict)
	f.Fails(Park("a", slave.Record{}.GFID), slave.ErrConflict)
	f.Fails(Unpark("b", Rec(9, 1)), slave.ErrNeedContent)
	f.Fails(Link("b", "a", Rec(9, 1), 2), slave.ErrNeedContent)
	f.Fails(Finish("gone", Rec(3, 1), 1), fs.ErrNotExist)
	f.Must(Park("a", GFID(2)))
	f.Must(Mkdir("a", Rec(4, 0)))
	f.Fails(Unpark("a", Rec(2, 1)), slave.ErrConflict)
	f.StagingEmpty()
}

func malformed(f *Fixture) {
	for _, path := range []string{
		"/a", "a/", "a//b", ".", "..", "../x", "a/../b", "./a", "a\x00b", ".georep", ".georep/x", strings.Repeat("n", 256),
	} {
		for _, op := range []slave.Op{
			Put(path, Rec(1, 1), "x"), Mkdir(path, Rec(1, 0)), Park(path, GFID(1)), Unpark(path, Rec(1, 1)),
			Link("ok", path, Rec(1, 1), 2), Finish(path, Rec(1, 1), 1),
		} {
			f.Fails(op, slave.ErrInvalid)
		}
	}
	own := Put("a", Rec(1, 1), "x")
	own.Meta.Xattrs = []slave.Xattr{{Name: "trusted.glusterfs.00000000-0000-4000-8000-000000000000.xtime", Value: make([]byte, 8)}}
	f.Fails(own, slave.ErrInvalid)
	f.Fails(Put("", Rec(1, 1), "x"), slave.ErrInvalid)
	f.Fails(Park("", GFID(1)), slave.ErrInvalid)
	f.Gone("a")
	// The name is ours at the root only.
	f.Must(Mkdir("d", Rec(1, 0)), Mkdir("d/.georep", Rec(2, 0)))
}

func names(f *Fixture) {
	var ops []slave.Op
	all := []string{"new\nline", "\xff\xfe", " ", "-rf", "*", strings.Repeat("n", 255), "\x01\x1b[31m", "é"}
	for i, name := range all {
		ops = append(ops, Mkdir(name, Rec(2*i+1, 0)), Put(name+"/"+name, Rec(2*i+2, 1), name))
	}
	f.Must(ops...)
	_, entries := f.Survey("")
	if len(entries) != len(all) {
		f.Fatalf("%d names of %d", len(entries), len(all))
	}
	for i, name := range all {
		f.Content(name+"/"+name, name)
		if f.Record(name+"/"+name) != Rec(2*i+2, 1) {
			f.Fatalf("record of %q", name)
		}
	}
}

func longPaths(f *Fixture) {
	path, n := "", 1
	limit := 3 * 4096
	if f.ShortPaths {
		limit = unix.PathMax - 1 - len(f.Root) - 2*242
	}
	for len(path) < limit {
		path = beneath.Join(path, strings.Repeat("d", 240))
		f.Must(Mkdir(path, Rec(n, 0)))
		n++
	}
	file := beneath.Join(path, "file")
	f.Must(Put(file, Rec(n, 1), "deep"), Finish(path, Rec(n-1, 2), 1))
	if state, entries := f.Survey(path); entries["file"].Record != Rec(n, 1) || state.Record != Rec(n-1, 2) {
		f.Fatalf("deep down: %+v", state)
	}
	f.Must(Linked(Put(file, Rec(n, 3), "deep again"), 2), Link(beneath.Join(path, "also"), file, Rec(n, 3), 2))
	top := strings.Repeat("d", 240)
	f.Must(Park(top, GFID(1)))
	f.Gone(top)
	if err := f.Tree.Clean(f.Context(), 0); err != nil {
		f.Fatal(err)
	}
	f.areaEmpty("parked")
	f.areaEmpty("trash")
}

func (f *Fixture) areaEmpty(area string) {
	f.Helper()
	names, err := os.ReadDir(f.Path(filepath.Join(slave.Reserved, area)))
	if err != nil || len(names) != 0 {
		f.Fatalf("%s holds %v (%v)", area, names, err)
	}
}

func planted(f *Fixture) {
	outside := f.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "a"), []byte("outside"), 0o644); err != nil {
		f.Fatal(err)
	}
	if err := os.Symlink(outside, f.Path("d")); err != nil {
		f.Fatal(err)
	}
	meta := slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "d/a", Record: Rec(1, 1), Meta: MetaOf(0o600)}
	ops := []slave.Op{
		Put("d/a", Rec(1, 1), "inside"), Mkdir("d/new", Rec(2, 0)), meta, Finish("d", Rec(3, 1), 1),
		Link("d/b", "", Rec(4, 1), 2), Park("d/a", slave.Record{}.GFID), Mkdir("d", Rec(5, 0)),
	}
	for i, r := range f.Apply(ops...) {
		if ops[i].Kind != slave.OpPark && r.Err == nil {
			f.Errorf("%s %q succeeded through a symbolic link", ops[i].Kind, ops[i].Path)
		}
	}
	if states, err := f.Tree.Survey(f.Context(), []slave.Query{{Path: "d"}}); err != nil || states[0].Err == nil {
		f.Errorf("survey through a symbolic link: %v, %+v", err, states)
	}
	if sums, err := f.Tree.Hash(f.Context(), []string{"d/a"}); err != nil || sums[0].Err == nil {
		f.Errorf("hash through a symbolic link: %v, %+v", err, sums)
	}
	left, err := os.ReadDir(outside)
	text, err2 := os.ReadFile(filepath.Join(outside, "a"))
	if err != nil || err2 != nil || len(left) != 1 || string(text) != "outside" {
		f.Fatalf("outside: %v %q (%v, %v)", left, text, err, err2)
	}
	f.StagingEmpty()
}
