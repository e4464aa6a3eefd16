// Package slavetest is the contract of slave.Tree as a test suite: every implementation runs it, the agent included,
// on a root that the suite can look at directly.
package slavetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
)

// Opener opens a slave on a new, empty root and tells the root's path on this host. It registers with t whatever has
// to be closed or removed.
type Opener func(t *testing.T) (tree slave.Tree, root string)

// Limits are what a slave says that its files cannot show, or that it cannot do. The zero value is a slave that can do all.
type Limits struct {
	// OnRecord: xattrs, nanoseconds, FIFOs, sockets and devices are kept on record; a survey tells of them, the files do not
	// show them.
	OnRecord bool
	// Faked: what the files cannot show is kept in xattrs of theirs (slave.AttrStat).
	Faked bool
	// NoLinks: the names of one inode are files of equal content.
	NoLinks bool
	// ShortPaths: none is longer than PATH_MAX.
	ShortPaths bool
	// NoBasis: an upload gets nothing from what the slave has already.
	NoBasis bool
	// Blind: it does not know what it is below its root, nor on which host.
	Blind bool
}

// Run runs the suite. Each test opens a slave of its own.
func Run(t *testing.T, open Opener) { RunLimited(t, open, Limits{}) }

// RunLimited is Run for a slave with limits.
func RunLimited(t *testing.T, open Opener, l Limits) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			tree, root := open(t)
			c.run(&Fixture{T: t, Tree: tree, Root: root, Limits: l})
		})
	}
}

type testCase struct {
	name string
	run  func(f *Fixture)
}

func cases() []testCase {
	var all []testCase
	all = append(all, entryCases()...)
	all = append(all, parkCases()...)
	all = append(all, linkCases()...)
	all = append(all, stampCases()...)
	all = append(all, uploadCases()...)
	return append(all, readCases()...)
}

// Fixture is a slave under test.
type Fixture struct {
	*testing.T
	Tree slave.Tree
	Root string
	Limits
}

// GFID makes a GFID that is told apart by n.
func GFID(n int) xtime.GFID {
	g := xtime.GFID{0: 0xee}
	copy(g[8:], fmt.Sprintf("%08d", n))
	return g
}

// Rec makes a record: the n-th inode at second sec.
func Rec(n int, sec uint64) slave.Record {
	return slave.Record{GFID: GFID(n), Xtime: xtime.Time(sec << 32)}
}

// Path is where the slave's path is on this host.
func (f *Fixture) Path(path string) string { return filepath.Join(f.Root, path) }

// Apply applies a batch and fails the test when the session fails.
func (f *Fixture) Apply(ops ...slave.Op) []slave.Result {
	f.Helper()
	res, err := f.Tree.Apply(context.Background(), &slave.Batch{Ops: ops})
	if err != nil {
		f.Fatalf("apply: %v", err)
	}
	if len(res) != len(ops) {
		f.Fatalf("%d results of %d operations", len(res), len(ops))
	}
	return res
}

// Must applies a batch twice, as if the first answer had been lost: both times all of it must succeed. It returns the
// first results.
func (f *Fixture) Must(ops ...slave.Op) []slave.Result {
	f.Helper()
	first := f.Apply(ops...)
	for round, res := range [][]slave.Result{first, f.Apply(ops...)} {
		for i, r := range res {
			if r.Err != nil {
				f.Fatalf("round %d: %s %q: %v", round+1, ops[i].Kind, ops[i].Path, r.Err)
			}
		}
	}
	return first
}

// Fails applies one operation and wants this error.
func (f *Fixture) Fails(op slave.Op, want error) {
	f.Helper()
	err := f.Apply(op)[0].Err
	if !errors.Is(err, want) {
		f.Fatalf("%s %q: got %v, want %v", op.Kind, op.Path, err, want)
	}
	var pe *slave.PathError
	if !errors.As(err, &pe) || pe.Path != op.Path || pe.Op == "" {
		f.Fatalf("%s %q: %#v is no PathError of the path", op.Kind, op.Path, err)
	}
}

// Survey reads one directory that must be readable, by name.
func (f *Fixture) Survey(path string) (slave.DirState, map[string]slave.EntryState) {
	f.Helper()
	states, err := f.Tree.Survey(context.Background(), []slave.Query{{Path: path}})
	if err != nil || len(states) != 1 || states[0].Err != nil {
		f.Fatalf("survey %q: %v, %+v", path, err, states)
	}
	byName := map[string]slave.EntryState{}
	for _, e := range states[0].Entries {
		byName[e.Name] = e
	}
	return states[0], byName
}

// Record reads what is on record for an entry, through the slave.
func (f *Fixture) Record(path string) slave.Record {
	f.Helper()
	if path == "" {
		state, _ := f.Survey("")
		return state.Record
	}
	dir, name := beneath.Split(path)
	_, entries := f.Survey(dir)
	e, ok := entries[name]
	if !ok {
		f.Fatalf("survey %q lacks %q", dir, name)
	}
	return e.Record
}

// Content checks what a file holds.
func (f *Fixture) Content(path, want string) {
	f.Helper()
	got, err := os.ReadFile(f.Path(path))
	if err != nil {
		f.Fatal(err)
	}
	if string(got) != want {
		f.Fatalf("%s holds %.40q, want %.40q", path, got, want)
	}
}

// Gone checks that there is no such entry.
func (f *Fixture) Gone(path string) {
	f.Helper()
	if _, err := os.Lstat(f.Path(path)); !errors.Is(err, os.ErrNotExist) {
		f.Fatalf("%s: got %v, want that it does not exist", path, err)
	}
}

// Stat describes an entry.
func (f *Fixture) Stat(path string) unix.Stat_t {
	f.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(f.Path(path), &st); err != nil {
		f.Fatalf("stat %s: %v", path, err)
	}
	f.unfake(path, &st)
	return st
}

// unfake puts what is kept of an entry in the place of what it is.
func (f *Fixture) unfake(path string, st *unix.Stat_t) {
	f.Helper()
	buf := make([]byte, 256)
	if kind := slave.KindOf(st.Mode); !f.Faked || kind != slave.File && kind != slave.Dir {
		return
	}
	n, err := unix.Getxattr(f.Path(path), slave.AttrStat, buf)
	if errors.Is(err, unix.ENODATA) {
		return
	}
	kept, ok := slave.ParseKept(buf[:max(n, 0)], &beneath.Stat{Mode: st.Mode, Size: st.Size})
	if err != nil || !ok {
		f.Fatalf("what is kept of %s: %q, %v", path, buf[:max(n, 0)], err)
	}
	st.Mode, st.Uid, st.Gid, st.Rdev = kept.Mode, kept.UID, kept.GID, kept.Rdev
}

// SameInode checks that all paths are names of one inode, which has just these names and those parked.
func (f *Fixture) SameInode(paths ...string) {
	f.Helper()
	if f.NoLinks {
		f.sameContent(paths)
		return
	}
	first := f.Stat(paths[0])
	for _, p := range paths[1:] {
		if st := f.Stat(p); st.Ino != first.Ino {
			f.Fatalf("%s and %s are not one inode", paths[0], p)
		}
	}
}

// sameContent is SameInode where there are no links.
func (f *Fixture) sameContent(paths []string) {
	f.Helper()
	for _, p := range paths {
		first, err := os.ReadFile(f.Path(paths[0]))
		here, err2 := os.ReadFile(f.Path(p))
		if err != nil || err2 != nil || !bytes.Equal(first, here) || f.Record(p) != f.Record(paths[0]) {
			f.Fatalf("%s and %s differ: %v, %v", paths[0], p, err, err2)
		}
	}
}

// mtimeIs tells whether st shows the time that was set.
func (f *Fixture) mtimeIs(st unix.Stat_t, want beneath.Time) bool {
	return st.Mtim.Sec == want.Sec && (f.OnRecord || st.Mtim.Nsec == int64(want.Nsec))
}

// digestOf is the digest of a content after a prefix.
func digestOf(prefix []byte, content string) [32]byte {
	d := beneath.NewDigest(prefix)
	_, _ = io.WriteString(d, content) // never fails
	_, sum := d.Sum()
	return sum
}

// StagingEmpty checks that nothing was left in staging.
func (f *Fixture) StagingEmpty() {
	f.Helper()
	names, err := os.ReadDir(f.Path(slave.Reserved + "/staging"))
	if err != nil || len(names) != 0 {
		f.Fatalf("staging holds %v (%v)", names, err)
	}
}

// MetaOf is a plain owner's meta with this mode: that of the user who runs the test.
func MetaOf(mode uint32) slave.Meta {
	return slave.Meta{
		Mode: mode, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		Mtime: beneath.Time{Sec: 1_500_000_000, Nsec: 123_456_789},
	}
}

// Put makes an OpPut.
func Put(path string, rec slave.Record, text string) slave.Op {
	op := slave.Op{Kind: slave.OpPut, Entry: slave.File, Path: path, Record: rec, Meta: MetaOf(0o644)}
	op.Meta.Size = int64(len(text))
	op.Open = func() (slave.Content, error) { return Text(text), nil }
	return op
}

// Mkdir makes an OpMkdir.
func Mkdir(path string, rec slave.Record) slave.Op {
	return slave.Op{Kind: slave.OpMkdir, Entry: slave.Dir, Path: path, Record: rec, Meta: MetaOf(0o755)}
}

// Finish makes an OpFinish with a stamp.
func Finish(path string, rec slave.Record, pass uint32) slave.Op {
	return slave.Op{
		Kind: slave.OpFinish, Entry: slave.Dir, Path: path, Record: rec, Meta: MetaOf(0o755), Stamp: true, Pass: pass,
	}
}

// Park makes an OpPark.
func Park(path string, g xtime.GFID) slave.Op {
	return slave.Op{Kind: slave.OpPark, Path: path, Expect: g}
}

// Unpark makes an OpUnpark.
func Unpark(path string, rec slave.Record) slave.Op {
	return slave.Op{Kind: slave.OpUnpark, Path: path, Record: rec}
}

// Link makes an OpLink for an inode that has links names.
func Link(path, from string, rec slave.Record, links uint32) slave.Op {
	return slave.Op{
		Kind: slave.OpLink, Entry: slave.File, Path: path, From: from, Record: rec, Links: links, Ino: 77,
		Meta: MetaOf(0o644),
	}
}

// Linked makes op one of an inode with several names.
func Linked(op slave.Op, links uint32) slave.Op {
	op.Links, op.Ino = links, 77
	return op
}

// Memory is a content in memory. Its pieces are at most slave.MaxPiece long.
type Memory struct {
	Pieces []slave.Piece
	Ends   slave.End
	Err    error        // given after the pieces, in place of io.EOF
	Closed atomic.Int64 // how often it was closed
}

// Text is a content without holes.
func Text(text string) *Memory {
	m := &Memory{Ends: slave.End{Size: int64(len(text))}}
	for off := 0; off < len(text); off += slave.MaxPiece {
		m.Pieces = append(m.Pieces, slave.Piece{Off: int64(off), Data: []byte(text[off:min(off+slave.MaxPiece, len(text))])})
	}
	return m
}

// Next gives the next piece; it is overwritten by the call after, as the contract allows.
func (m *Memory) Next() (slave.Piece, error) {
	if len(m.Pieces) == 0 {
		if m.Err != nil {
			return slave.Piece{}, m.Err
		}
		return slave.Piece{}, io.EOF
	}
	p := m.Pieces[0]
	m.Pieces = m.Pieces[1:]
	return slave.Piece{Off: p.Off, Data: bytes.Clone(p.Data)}, nil
}

// End tells how the content ended.
func (m *Memory) End() slave.End { return m.Ends }

// Close counts.
func (m *Memory) Close() error {
	m.Closed.Add(1)
	return nil
}
