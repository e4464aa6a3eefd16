package agenthost

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"georep/marker/xtime"
	"georep/slave/agent"
)

// TestIncoming: the slave's host sees who replicates into it, and whether that is connected.
func TestIncoming(t *testing.T) {
	w := newWorld(t)
	none, err := AllIncoming(w.store)
	if err != nil || len(none) != 0 {
		t.Fatalf("%+v, %v", none, err)
	}
	one := func() Incoming {
		t.Helper()
		list, err := AllIncoming(w.store)
		if err != nil || len(list) != 1 {
			t.Fatalf("%+v, %v", list, err)
		}
		return list[0]
	}
	c := w.login(agent.Hello{Master: xtime.UUID{7}})
	in := one()
	if !in.Connected || in.Slave != "copy" || in.Path != w.root || in.From != "192.0.2.1 port 7" || in.Master != (xtime.UUID{7}).String() ||
		in.Session != (xtime.UUID{2}).String() || in.Refused != "" || !in.LastSynced.IsZero() {
		t.Errorf("connected: %+v", in)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	w.waitFor(Ended)
	for end := time.Now().Add(time.Minute); one().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is connected still")
		}
	}
	stamp := xtime.FromTime(time.Unix(1000, 0)).Bytes()
	names := xtime.NamesFor(xtime.User, xtime.UUID{7})
	if err := unix.Setxattr(w.root, names.Xtime, stamp[:], 0); err != nil {
		t.Fatal(err)
	}
	if in := one(); in.LastSynced.Unix() != 1000 {
		t.Errorf("stamped: %+v", in)
	}
	w.set("read-only", "on")
	if _, err := w.dial(agent.Hello{Master: xtime.UUID{7}}); err == nil {
		t.Fatal("not refused")
	}
	if in := one(); in.Connected || in.Refused == "" {
		t.Errorf("refused: %+v", in)
	}
}
