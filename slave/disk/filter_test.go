package disk

import (
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

// TestFilterIsOnRecord: the next session learns under which filter the stamps were made; a slave that is taken anew has none.
func TestFilterIsOnRecord(t *testing.T) {
	o := Options{Path: t.TempDir(), Master: xtime.NewUUID(), Session: xtime.NewUUID(), Version: "test"}
	want := slave.Record{GFID: xtime.GFID{1, 2, 3}, Xtime: 77}
	put := func(r slave.Record) {
		t.Helper()
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		results, err := s.Apply(t.Context(), &slave.Batch{Ops: []slave.Op{{Kind: slave.OpFilter, Record: r}}})
		if err != nil || results[0].Err != nil {
			t.Fatal(err, results)
		}
	}
	check := func(want slave.Record) {
		t.Helper()
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Info().Filter; got != want {
			t.Errorf("on record is %v, want %v", got, want)
		}
		s.Close()
	}
	check(slave.Record{})
	put(want)
	check(want)
	put(slave.Record{Xtime: 88}) // no filter any more
	check(slave.Record{Xtime: 88})
	o.Master, o.Force = xtime.NewUUID(), true
	check(slave.Record{})
}
