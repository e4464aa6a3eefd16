package volume

import (
	"errors"
	"maps"
	"testing"
)

// TestPurge: an approval is of just what was shown, and ends with it.
func TestPurge(t *testing.T) {
	s, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateVolume(NewVolume{Name: "data", Path: t.TempDir()}); err != nil {
		t.Fatal(err)
	}
	slave, err := ParseSlave("file:///copy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSession(Session{Master: "data", Slave: slave}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Purge("data", slave); !errors.Is(err, ErrNoPurge) {
		t.Errorf("at first: %v", err)
	}
	refuse := func(keys PurgeKeys) Purge {
		t.Helper()
		if err := s.RefusePurge("data", slave, Purge{Entries: 3, Keys: keys, Items: []PurgeItem{NewPurgeItem("a\xff", 3, true)}}); err != nil {
			t.Fatal(err)
		}
		p, err := s.Purge("data", slave)
		if err != nil || !maps.Equal(p.Keys, keys) || p.Items[0].Name() != "a\xff" {
			t.Fatalf("%+v, %v", p, err)
		}
		return p
	}
	one := refuse(PurgeKeys{1: 2, 1 << 63: 1})
	if err := s.ApprovePurge("data", slave, one.ID); err != nil {
		t.Fatal(err)
	}
	if p := refuse(PurgeKeys{1 << 63: 1, 1: 2}); p.Approved == nil || p.ID != one.ID {
		t.Errorf("refused once more what is approved: %+v", p)
	}
	if p := refuse(PurgeKeys{1: 3}); p.Approved != nil {
		t.Errorf("another one is approved: %+v", p)
	}
	if err := s.ApprovePurge("data", slave, one.ID); err == nil {
		t.Error("approved what was not shown")
	}
	for range 2 {
		if err := s.ForgetPurge("data", slave); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Purge("data", slave); !errors.Is(err, ErrNoPurge) {
		t.Errorf("in the end: %v", err)
	}
}
