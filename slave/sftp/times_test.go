package sftp

import (
	"testing"

	"georep/integration/harness/fstest"
	"georep/slave"
	"georep/slave/slavetest"
)

// TestLateTimes: where the server's file system knows no time after 2038, a file of a later one is told as such, and its record
// counts all the same.
func TestLateTimes(t *testing.T) {
	root := fstest.Mount(t, fstest.Ext4, fstest.Options{Mkfs: []string{"-I", "128"}})
	for name, start := range servers() {
		t.Run(name, func(t *testing.T) {
			o := options(t, root, start, 1)
			o.Force = true
			tree, err := Open(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			f := &slavetest.Fixture{T: t, Tree: tree, Root: root, Limits: slavetest.Limits{OnRecord: true}}
			put := slavetest.Put("f", slavetest.Rec(1, 1), "x")
			put.Meta.Mtime.Sec, put.Meta.Mtime.Nsec = 2_600_000_000, 0
			for range 2 {
				if r := f.Must(put); r[0].Lost != slave.LostTime {
					t.Errorf("lost %v", r[0].Lost)
				}
				if rec := f.Record("f"); rec != put.Record {
					t.Errorf("on record as %v", rec)
				}
				put.Kind, put.Expect, put.Open, put.Record = slave.OpMeta, put.Record.GFID, nil, slavetest.Rec(1, 2)
			}
			put = slavetest.Put("g", slavetest.Rec(2, 1), "y")
			put.Meta.Mtime.Nsec = 0
			if r := f.Must(put); r[0].Lost != 0 {
				t.Errorf("lost %v", r[0].Lost)
			}
		})
	}
}
