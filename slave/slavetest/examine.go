package slavetest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// InspectorOpener opens a slave to be inspected, whose root another one has open.
type InspectorOpener func(t *testing.T, root string) slave.Reader

// RunInspector runs the suite of what a slave that was opened to be inspected must do, beside the one that open gives.
func RunInspector(t *testing.T, open Opener, inspector InspectorOpener) {
	for name, run := range map[string]func(*Fixture, slave.Reader){
		"all of an entry":           examineEntries,
		"contents after a nonce":    digestEntries,
		"no way out":                examineNoWayOut,
		"records are taken back":    distrust,
		"the tree is left as it is": inspectorRefuses,
	} {
		t.Run(name, func(t *testing.T) {
			tree, root := open(t)
			f := &Fixture{T: t, Tree: tree, Root: root}
			f.Must(Put("first", Rec(90, 1), "x"), slave.Op{Kind: slave.OpFinish, Entry: slave.Dir, Path: "", Stamp: true,
				Meta: slave.Meta{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}, Record: Rec(1, 9), Pass: 1})
			other := inspector(t, root)
			if got, want := other.Info(), tree.Info(); got.Namespace != want.Namespace || got.Root != want.Root || got.Path != want.Path {
				t.Fatalf("%+v, want as %+v", got, want)
			}
			run(f, other)
		})
	}
}

// nonce is that of the suite's digests.
var nonce = slave.Nonce{7, 8, 9}

func (f *Fixture) examine(tree slave.Reader, paths ...string) []slave.Detail {
	f.Helper()
	all, err := tree.(slave.Examiner).Examine(context.Background(), nonce, paths)
	if err != nil || len(all) != len(paths) {
		f.Fatalf("examine: %d of %d, %v", len(all), len(paths), err)
	}
	return all
}

func examineEntries(f *Fixture, inspector slave.Reader) {
	op := Put("d/a", Rec(3, 7), "12345")
	op.Meta.Xattrs = []slave.Xattr{{Name: "user.b", Value: []byte("2")}, {Name: "user.a", Value: []byte("1")}}
	f.Must(Mkdir("d", Rec(2, 0)), op)
	for _, err := range []error{os.Link(f.Path("d/a"), f.Path("b")), os.Symlink("where", f.Path("l")),
		os.WriteFile(f.Path("c"), nil, 0o600), unix.Setxattr(f.Path("c"), "user.ab", []byte("12"), 0)} {
		if err != nil {
			f.Fatal(err)
		}
	}
	all := f.examine(inspector, "d/a", "b", "l", "c", "", "none")
	a := all[0]
	want, _ := slave.DigestXattrs(nonce, []slave.Xattr{op.Meta.Xattrs[1], op.Meta.Xattrs[0]}, true)
	if a.Kind != slave.File || a.Record != op.Record || a.Size != 5 || a.Nlink != 2 || a.Mtime != op.Meta.Mtime ||
		a.Mode != op.Meta.Mode || a.Xattrs != want || a.ACL != [slave.HashSize]byte{} || a.Err != nil {
		f.Fatalf("%+v", a)
	}
	if all[1] != a || a.Ino == 0 {
		f.Fatalf("another name of it: %+v, want %+v", all[1], a)
	}
	if l := all[2]; l.Kind != slave.Symlink || l.Target != "where" || l.Ino == a.Ino {
		f.Fatalf("%+v", l)
	}
	if all[3].Xattrs == a.Xattrs || all[3].Xattrs == ([slave.HashSize]byte{}) {
		f.Fatal("other xattrs, same digest")
	}
	if root := all[4]; root.Kind != slave.Dir || root.Record.GFID != Rec(1, 9).GFID || root.Err != nil {
		f.Fatalf("%+v", root)
	}
	if !errors.Is(all[5].Err, fs.ErrNotExist) {
		f.Fatalf("%+v", all[5])
	}
	if err := unix.Setxattr(f.Path("d/a"), "user.a", []byte("3"), 0); err != nil {
		f.Fatal(err)
	}
	if again := f.examine(inspector, "d/a")[0]; again.Xattrs == a.Xattrs {
		f.Fatal("an xattr changed, and the digest did not")
	}
}

func digestEntries(f *Fixture, inspector slave.Reader) {
	f.Must(Mkdir("d", Rec(2, 0)), Put("d/a", Rec(3, 7), "12345"), Put("empty", Rec(4, 7), ""))
	examiner := inspector.(slave.Examiner)
	sums, err := examiner.Digest(context.Background(), nonce, []string{"d/a", "empty", "d", "none", "../x"})
	if err != nil || len(sums) != 5 {
		f.Fatalf("%+v, %v", sums, err)
	}
	for i, content := range []string{"12345", ""} {
		want := digestOf(nonce[:], content)
		if r := sums[i]; r.Sum != want || r.Size != int64(len(content)) || r.Err != nil {
			f.Errorf("%q: %+v", content, r)
		}
	}
	for i, want := range map[int]error{2: slave.ErrConflict, 3: fs.ErrNotExist, 4: slave.ErrInvalid} {
		if !errors.Is(sums[i].Err, want) {
			f.Errorf("%d: %v, want %v", i, sums[i].Err, want)
		}
	}
	op := Put("x", Rec(5, 7), "")
	op.Meta.Xattrs = []slave.Xattr{{Name: "user.a", Value: []byte("1")}}
	f.Must(op)
	other, err := examiner.Examine(context.Background(), slave.Nonce{1}, []string{"x"})
	if err != nil || other[0].Xattrs == f.examine(inspector, "x")[0].Xattrs {
		f.Fatalf("another nonce, the same digest of the xattrs; %v", err)
	}
}

func examineNoWayOut(f *Fixture, inspector slave.Reader) {
	if err := os.Symlink("/etc", f.Path("out")); err != nil {
		f.Fatal(err)
	}
	paths := []string{"..", "/etc", "a/../../x", "out/passwd", ".georep/owner", ".georep", "a\x00b", strings.Repeat("n", 300)}
	for i, d := range f.examine(inspector, paths...) {
		var pe *slave.PathError
		if !errors.As(d.Err, &pe) || pe.Path != paths[i] {
			f.Errorf("%q: %+v", paths[i], d)
		}
	}
	results, err := inspector.(slave.Examiner).Distrust(context.Background(), []string{"..", ".georep/owner"})
	if err != nil || !errors.Is(results[0].Err, slave.ErrInvalid) || !errors.Is(results[1].Err, slave.ErrInvalid) {
		f.Fatalf("%+v, %v", results, err)
	}
}

func distrust(f *Fixture, inspector slave.Reader) {
	f.Must(Mkdir("d", Rec(2, 0)), Mkdir("d/e", Rec(3, 0)), Mkdir("s", Rec(4, 0)), Put("d/e/f", Rec(5, 7), "x"),
		Put("d/e/g", Rec(6, 7), "y"))
	finish := func(path string, n int) slave.Op {
		return slave.Op{Kind: slave.OpFinish, Entry: slave.Dir, Path: path, Stamp: true, Record: Rec(n, 8), Pass: 2,
			Meta: slave.Meta{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}}
	}
	f.Must(finish("d/e", 3), finish("d", 2), finish("s", 4), finish("", 1))
	results, err := inspector.(slave.Examiner).Distrust(context.Background(), []string{"d/e/f", "d/none/at/all"})
	if err != nil || results[0].Err != nil || results[1].Err != nil {
		f.Fatalf("%+v, %v", results, err)
	}
	all := f.examine(inspector, "d/e/f", "d/e", "d", "", "d/e/g", "s")
	for i, want := range []slave.Record{Rec(5, 0), Rec(3, 0), Rec(2, 0), Rec(1, 0), Rec(6, 7), Rec(4, 8)} {
		if all[i].Record != want {
			f.Errorf("%d: on record %+v, want %+v", i, all[i].Record, want)
		}
	}
}

// inspectorRefuses is for an agent's slave: it can be asked to change what the far end has open for inspection.
func inspectorRefuses(f *Fixture, inspector slave.Reader) {
	tree, ok := inspector.(slave.Tree)
	if !ok {
		return
	}
	if _, err := tree.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{Mkdir("made", Rec(2, 0))}}); err == nil {
		f.Fatal("a slave that was opened to be inspected took a batch")
	}
	if _, err := os.Lstat(f.Path("made")); !errors.Is(err, fs.ErrNotExist) {
		f.Fatalf("it made something: %v", err)
	}
	f.Must(Mkdir("d", Rec(2, 0))) // the other one is not disturbed
}
