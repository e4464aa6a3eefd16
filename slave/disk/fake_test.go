package disk

import (
	"context"
	"maps"
	"os"
	"path"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
	"georep/slave/policy"
	"georep/slave/slavetest"
)

// TestFakeOwner: what the login gives to nobody is kept beside, and read back by a survey and by verify as it is on the master, also
// after it changed.
func TestFakeOwner(t *testing.T) {
	for name, p := range map[string]policy.Policy{
		"alone": {FakeOwner: true},
		"with all others": {FakeOwner: true, NoSetuid: true, NoDevices: true, MaxBytes: 1 << 20, MaxEntries: 100,
			Owner: &policy.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			o := testOptions(t, root)
			o.Policy = p
			tree, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
			ops := fakeOps()
			for _, r := range f.Must(ops...) {
				if r.Lost != 0 {
					t.Errorf("lost: %v", r.Lost)
				}
			}
			checkFake(t, o, f, ops)
			for i := range ops {
				ops[i].Meta.UID++
				ops[i].Meta.Mode ^= 0o2011
				ops[i].Record.Xtime++
				switch k := kindOf(&ops[i]); {
				case ops[i].Kind == slave.OpPut:
					ops[i].Kind, ops[i].Entry, ops[i].Expect = slave.OpMeta, slave.File, ops[i].Record.GFID
				case ops[i].Kind == slave.OpNode:
					ops[i].Kind, ops[i].Entry, ops[i].Expect = slave.OpMeta, k, ops[i].Record.GFID
				}
			}
			f.Must(ops...)
			checkFake(t, o, f, ops)
		})
	}
}

// TestContractFaked runs the suite where what the login cannot give is kept.
func TestContractFaked(t *testing.T) {
	slavetest.RunLimited(t, func(t *testing.T) (slave.Tree, string) {
		f := limited(t, memory(t), policy.Policy{FakeOwner: true, MaxBytes: 1 << 40, MaxEntries: 1 << 30})
		return f.Tree, f.Root
	}, slavetest.Limits{Faked: true})
}

// fakeOps make one of everything that an ordinary login cannot make.
func fakeOps() []slave.Op {
	meta := func(mode, uid, gid uint32) slave.Meta {
		m := slavetest.MetaOf(mode)
		m.UID, m.GID = uid, gid
		return m
	}
	dir := slavetest.Mkdir("d", slavetest.Rec(1, 0))
	dir.Meta = meta(0o2505, 1, 2)
	shell := slavetest.Put("d/shell", slavetest.Rec(2, 1), "#!/bin/sh")
	shell.Meta = meta(0o6751, 0, 77)
	shell.Meta.Size = 9
	shell.Meta.Xattrs = []slave.Xattr{{Name: slave.AttrCapability, Value: []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")},
		{Name: slave.AttrACL, Value: []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 9, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
			16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255}},
		{Name: "trusted.something", Value: []byte("t")}, {Name: "user.plain", Value: []byte("u")}}
	closed := slavetest.Put("d/closed", slavetest.Rec(3, 1), "x")
	closed.Meta = meta(0, 5, 5)
	closed.Meta.Size = 1
	ops := []slave.Op{dir, shell, closed}
	for i, kind := range []slave.Kind{slave.BlockDev, slave.CharDev, slave.Fifo, slave.Socket} {
		node := slave.Op{Kind: slave.OpNode, Entry: kind, Path: "d/" + kind.String(), Record: slavetest.Rec(10+i, 1), Meta: meta(0o660, 0, 6)}
		if kind.Device() {
			node.Meta.Rdev = unix.Mkdev(7, uint32(200+i))
		}
		ops = append(ops, node)
	}
	finish := slavetest.Finish("d", slavetest.Rec(1, 5), 1)
	finish.Meta = dir.Meta
	return append(ops, finish)
}

// checkFake holds what is there, what is told of it, and what verify sees, against what was asked for.
func checkFake(t *testing.T, o Options, f *slavetest.Fixture, ops []slave.Op) {
	t.Helper()
	f.Must(slavetest.Finish("", slavetest.Rec(99, 9), 1))
	inspector, err := OpenInspector(o)
	if err != nil {
		t.Fatal(err)
	}
	defer inspector.Close()
	if info := inspector.Info(); !info.Root || !info.Limits.Policy.Fake || info.Limits.Policy != f.Tree.Info().Limits.Policy {
		t.Errorf("the policy is told as %+v", info.Limits.Policy)
	}
	_, told := f.Survey("d")
	_, top := f.Survey("")
	maps.Copy(told, top)
	nonce := slave.Nonce{1}
	for i := range ops {
		op := &ops[i]
		details, err := inspector.Examine(context.Background(), nonce, []string{op.Path})
		if err != nil || details[0].Err != nil {
			t.Fatal(err, details[0].Err)
		}
		kind := op.Entry
		d, m, e := details[0], op.Meta, told[path.Base(op.Path)]
		xattrs, acl := slave.DigestXattrs(nonce, m.Xattrs, true)
		if d.Kind != kind || d.Mode != m.Mode || d.UID != m.UID || d.GID != m.GID || d.Rdev != m.Rdev || d.Xattrs != xattrs || d.ACL != acl {
			t.Errorf("verify sees %+v of %s, which is %v %+v", d, op.Path, kind, m)
		}
		if e.Kind != kind || e.Mode != m.Mode || e.UID != m.UID || e.GID != m.GID || e.Rdev != m.Rdev {
			t.Errorf("a survey tells %+v of %s, which is %v %+v", e, op.Path, kind, m)
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(f.Path(op.Path), &st); err != nil {
			t.Fatal(err)
		}
		is := slave.KindOf(st.Mode)
		if is != slave.File && is != slave.Dir || st.Mode&slave.SetIDBits != 0 || st.Uid != uint32(os.Geteuid()) || st.Mode&0o600 != 0o600 {
			t.Errorf("%s is %o of %d", op.Path, st.Mode, st.Uid)
		}
	}
}

// TestFakeOwnerOfALink: a symbolic link has no room for xattrs, which is told.
func TestFakeOwnerOfALink(t *testing.T) {
	root := t.TempDir()
	o := testOptions(t, root)
	o.Policy.FakeOwner = true
	tree, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := &slavetest.Fixture{T: t, Tree: tree, Root: root}
	link := slave.Op{Kind: slave.OpSymlink, Path: "l", Record: slavetest.Rec(1, 1), Meta: slavetest.MetaOf(0o777)}
	link.Meta.Target, link.Meta.UID = "somewhere", 4321
	if res := f.Must(link); res[0].Lost != slave.LostOwner || !tree.Info().Limits.Policy.Changes(res[0].Lost) {
		t.Errorf("lost: %v", res[0].Lost)
	}
	// The master's own xattr of such a name would be taken for what is kept.
	file := slavetest.Put("f", slavetest.Rec(2, 1), "x")
	file.Meta.Xattrs = []slave.Xattr{{Name: slave.AttrStat, Value: []byte("104755 0,0 0:0")}}
	if res := f.Must(file); res[0].Lost != slave.LostXattr {
		t.Errorf("lost: %v", res[0].Lost)
	}
	if _, e := f.Survey(""); len(e) != 2 || e["f"].Mode != 0o644 {
		t.Errorf("%+v", e)
	}
}

// TestFakeOwnerOfAnACL: what is kept is not in force, and the mode shows its mask in the place of the group's rights. The group gets no
// more than on the master.
func TestFakeOwnerOfAnACL(t *testing.T) {
	f := limited(t, t.TempDir(), policy.Policy{FakeOwner: true})
	op := slavetest.Put("f", slavetest.Rec(1, 1), "x")
	op.Meta = slavetest.MetaOf(0o670)
	op.Meta.Size, op.Meta.UID, op.Meta.GID = 1, 5, uint32(os.Getegid())
	op.Meta.Xattrs = []slave.Xattr{{Name: slave.AttrACL, Value: []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 7, 0, 9, 0, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}}}
	f.Must(op)
	if info, err := os.Stat(f.Path("f")); err != nil || info.Mode() != 0o640 {
		t.Errorf("it is %v, %v, and its group may but read it on the master", info.Mode(), err)
	}
}
