package disk

import (
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"georep/integration/harness/fstest"
	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/slavetest"
)

// TestTimesThatAreLost sees that what a file system does not keep of a time is told, and nothing else is.
func TestTimesThatAreLost(t *testing.T) {
	const second = 1_000_000_000
	for name, c := range map[string]struct {
		kind string
		mkfs []string
		want slave.TimeLimits
	}{
		"ext4, small inodes": {fstest.Ext4, []string{"-I", "128"}, slave.TimeLimits{Min: math.MinInt32, Max: math.MaxInt32, Step: second}},
		"ext4":               {fstest.Ext4, []string{"-I", "256"}, slave.TimeLimits{Min: math.MinInt32, Max: 1<<34 + math.MinInt32 - 1, Step: 1}},
		"xfs":                {fstest.XFS, []string{"-m", "bigtime=0"}, slave.TimeLimits{Min: math.MinInt32, Max: math.MaxInt32, Step: 1}},
		"btrfs":              {fstest.Btrfs, nil, slave.TimeLimits{Min: math.MinInt64, Max: math.MaxInt64, Step: 1}},
		"tmpfs":              {fstest.Tmpfs, nil, slave.TimeLimits{Min: math.MinInt64, Max: math.MaxInt64, Step: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.Mount(t, c.kind, fstest.Options{Mkfs: c.mkfs})
			f, _ := seamed(t, root)
			if got := f.Tree.Info().Limits.Times; got != c.want {
				t.Fatalf("found %+v, want %+v", got, c.want)
			}
			for n, at := range []beneath.Time{{Sec: 1_600_000_000}, {Sec: 1_600_000_000, Nsec: 123_456_789}, {Sec: -1, Nsec: 5},
				{Sec: math.MaxInt32 + 1}, {Sec: 1 << 35, Nsec: 7}, {Sec: -1 << 35}, {Sec: -2_208_988_800, Nsec: 1}} {
				put, finish := slavetest.Put("f", slavetest.Rec(1, uint64(n+1)), "x"), slavetest.Finish("", slavetest.Rec(2, uint64(n+1)), 1)
				put.Meta.Mtime, finish.Meta.Mtime = at, at
				for i, r := range append(f.Must(put), f.Must(finish)...) {
					var st unix.Stat_t
					if err := unix.Stat(f.Path([]string{"f", ""}[i]), &st); err != nil {
						t.Fatal(err)
					}
					has := beneath.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}
					if told := r.Lost == slave.LostTime; has != c.want.Keep(at) || told != (has != at) || r.Lost&^slave.LostTime != 0 {
						t.Errorf("%v is kept as %v, lost %v", at, has, r.Lost)
					}
				}
			}
			inspector, err := OpenInspector(testOptions(t, root))
			if err != nil {
				t.Fatal(err)
			}
			defer inspector.Close()
			if got := inspector.Info().Limits; got.Times != c.want {
				t.Errorf("inspector: %+v, want %+v", got, c.want)
			}
		})
	}
}

// namespaceDir tells a re-executed test that it is the run in a user namespace, and where it may write.
const namespaceDir = "GEOREP_TEST_NAMESPACE_DIR"

// againInNamespace runs the test again as the root of a user namespace that has the ids below 1000.
func againInNamespace(t *testing.T, run func(base string)) {
	t.Helper()
	if base := os.Getenv(namespaceDir); base != "" {
		run(base)
		return
	}
	if os.Geteuid() != 0 {
		t.Fatal("only root may map more than its own id into a user namespace")
	}
	base := fstest.Mount(t, fstest.Ext4, fstest.Options{})
	// Large directories are the same in any namespace.
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.skip=/^surveys_in_parts$")
	cmd.Env = append(os.Environ(), namespaceDir+"="+base, "TMPDIR="+base)
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1000}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "SKIP") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestContractInUserNamespace runs the contract as rootless containers do.
func TestContractInUserNamespace(t *testing.T) {
	againInNamespace(t, func(base string) { slavetest.Run(t, opener(base)) })
}

// TestUserNamespace sees that what an entry's owner, ACLs, capability and kind cannot be there is told, and that the entry
// arrives all the same.
func TestUserNamespace(t *testing.T) {
	againInNamespace(t, func(base string) { userNamespace(t, base) })
}

// aclOf gives the xattr of an ACL that lets this user read and write, with nothing for the owning group.
func aclOf(uid byte, more byte) []byte {
	entry := func(tag, perm byte, id ...byte) []byte {
		if id == nil {
			id = []byte{255, 255, 255, 255}
		}
		return append([]byte{tag, 0, perm, 0}, id...)
	}
	acl := []byte{2, 0, 0, 0}
	for _, e := range [][]byte{entry(1, 6), entry(2, 6, uid, more, 0, 0), entry(4, 0), entry(16, 6), entry(32, 0)} {
		acl = append(acl, e...)
	}
	return acl
}

func userNamespace(t *testing.T, base string) {
	root, err := os.MkdirTemp(base, "slave")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := seamed(t, root)
	info := f.Tree.Info()
	if info.Root || !info.Limits.HasUID(999) || info.Limits.HasGID(1000) {
		t.Fatalf("%+v", info)
	}
	known, unknown := aclOf(77, 0), aclOf(0xe1, 0x10) // 77 and 4321
	capability := []byte{1, 0, 0, 3, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe1, 0x10, 0, 0}
	put := func(n int, name string, uid uint32, mode uint32, xattrs ...slave.Xattr) slave.Op {
		op := slavetest.Put(name, slavetest.Rec(n, 1), name)
		op.Meta.UID, op.Meta.GID, op.Meta.Mode, op.Meta.Xattrs = uid, uid, mode, xattrs
		return op
	}
	half := put(8, "half", 5000, 0o644)
	half.Meta.GID = 42
	dir := slavetest.Finish("d", slavetest.Rec(9, 2), 1)
	dir.Meta.Xattrs = []slave.Xattr{{Name: attrDefaultACL, Value: unknown}}
	device := slave.Op{Kind: slave.OpNode, Entry: slave.CharDev, Path: "device", Record: slavetest.Rec(10, 1), Meta: slavetest.MetaOf(0o600)}
	device.Meta.Rdev = unix.Mkdev(1, 3)
	for _, c := range []struct {
		op   slave.Op
		mode uint32
		uid  uint32
		lost slave.Lost
		has  string // an xattr that is kept
	}{
		{put(1, "mapped", 77, 0o6755), 0o6755, 77, 0, ""},
		{put(2, "owner", 4321, 0o6755), 0o755, 0, slave.LostOwner | slave.LostMode, ""},
		{put(3, "acl", 77, 0o660, slave.Xattr{Name: attrACL, Value: known}), 0o660, 77, 0, attrACL},
		{put(4, "foreign acl", 77, 0o660, slave.Xattr{Name: "user.x", Value: known}, slave.Xattr{Name: attrACL, Value: unknown}),
			0o600, 77, slave.LostXattr, "user.x"},
		{put(3, "acl", 77, 0o660, slave.Xattr{Name: attrACL, Value: unknown}), 0o600, 77, slave.LostXattr, ""},
		{put(5, "capability", 0, 0o755, slave.Xattr{Name: attrCapability, Value: capability}), 0o755, 0, slave.LostXattr, ""},
		{put(6, "trusted", 0, 0o755, slave.Xattr{Name: "trusted.x", Value: known}), 0o755, 0, slave.LostXattr, ""},
		{put(7, "label", 0, 0o755, slave.Xattr{Name: "security.x", Value: known}), 0o755, 0, slave.LostXattr, ""},
		{half, 0o644, 0, slave.LostOwner, ""},
		{slavetest.Mkdir("d", slavetest.Rec(9, 0)), 0o755, 0, 0, ""},
		{dir, 0o755, 0, slave.LostXattr, ""},
		{device, 0, 0, slave.LostDevice, ""},
	} {
		r := f.Must(c.op)[0]
		if r.Lost != c.lost {
			t.Errorf("%s: lost %v, want %v", c.op.Path, r.Lost, c.lost)
		}
		if c.mode == 0 {
			f.Gone(c.op.Path)
			continue
		}
		if st := f.Stat(c.op.Path); st.Mode&0o7777 != c.mode || st.Uid != c.uid {
			t.Errorf("%s: mode %o, owner %d; want %o, %d", c.op.Path, st.Mode&0o7777, st.Uid, c.mode, c.uid)
		}
		if rec := f.Record(c.op.Path); rec.GFID != c.op.Record.GFID {
			t.Errorf("%s: on record as %v", c.op.Path, rec)
		}
		if c.has != "" {
			if _, err := unix.Lgetxattr(f.Path(c.op.Path), c.has, make([]byte, 100)); err != nil {
				t.Errorf("%s: %s: %v", c.op.Path, c.has, err)
			}
		}
	}
	if st := f.Stat("half"); st.Gid != 42 {
		t.Errorf("half: group %d, want 42", st.Gid)
	}
	// What was kept before goes, where what is to come cannot be.
	meta := put(3, "acl", 77, 0o660, slave.Xattr{Name: attrACL, Value: known})
	f.Must(meta)
	meta = metaOf("acl", slavetest.Rec(3, 2))
	meta.Meta.UID, meta.Meta.GID, meta.Meta.Mode, meta.Meta.Xattrs = 77, 77, 0o660, []slave.Xattr{{Name: attrACL, Value: unknown}}
	f.Must(meta)
	if _, err := unix.Lgetxattr(f.Path("acl"), attrACL, make([]byte, 100)); err != unix.ENODATA || f.Stat("acl").Mode&0o7777 != 0o600 {
		t.Errorf("the older ACL: %v, mode %o", err, f.Stat("acl").Mode&0o7777)
	}
	if _, err := os.Stat(filepath.Join(root, "device")); err == nil {
		t.Error("a device was made")
	}
}
