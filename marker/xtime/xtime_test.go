package xtime

import (
	"bytes"
	"testing"
	"time"
)

func TestEncodingIsGlusterFS(t *testing.T) {
	x := FromTime(time.Unix(0x01020304, 5000))
	b := x.Bytes()
	if want := []byte{1, 2, 3, 4, 0, 0, 0, 5}; !bytes.Equal(b[:], want) {
		t.Fatalf("encoded %v as %x, want %x", x, b, want)
	}
	if got, err := Parse(b[:]); err != nil || got != x {
		t.Fatalf("Parse(%x) = %v, %v", b, got, err)
	}
}

func TestFromTimeNeverEarlier(t *testing.T) {
	for _, in := range []time.Time{
		time.Unix(1, 0), time.Unix(1, 1), time.Unix(1, 999_999_999), time.Unix(0, 0), time.Unix(7, 999_999_000),
	} {
		x := FromTime(in)
		if x == 0 || x.Time().Before(in) {
			t.Errorf("FromTime(%v) = %v, earlier", in, x)
		}
		b := x.Bytes()
		if _, err := Parse(b[:]); err != nil {
			t.Errorf("FromTime(%v) does not parse: %v", in, err)
		}
	}
	if FromTime(time.Unix(-5, 0)) == 0 || FromTime(time.Unix(1<<33, 0)) == 0 {
		t.Error("a time outside the range became none")
	}
}

func TestNextIsStrictlyLaterAndValid(t *testing.T) {
	x := Time(5)<<32 | 999_998
	for range 4 {
		n := x.Next()
		b := n.Bytes()
		if _, err := Parse(b[:]); err != nil || n <= x {
			t.Fatalf("Next(%v) = %v, %v", x, n, err)
		}
		x = n
	}
}

func TestOwn(t *testing.T) {
	u, other := NewUUID(), NewUUID()
	for _, ns := range []Namespace{Trusted, User} {
		n := NamesFor(ns, u)
		for _, in := range []Namespace{Trusted, User} {
			mine, foreign := NamesFor(in, u), NamesFor(in, other)
			if !n.Own(mine.Xtime) || !n.Own(mine.GFID) || n.Foreign(mine.Xtime) != "" {
				t.Errorf("%+v not recognised as its own", mine)
			}
			// A user may write what looks like another volume's; only root what is.
			if n.Own(foreign.Xtime) != (in == Trusted) || n.Own(foreign.GFID) != (in == Trusted) || Reserved(foreign.Xtime) != (in == Trusted) {
				t.Errorf("%+v is own %v", foreign, n.Own(foreign.Xtime))
			}
			if got := n.Foreign(foreign.Xtime); (got == other.String()) != (in == User) || n.Foreign(foreign.GFID) != "" {
				t.Errorf("%+v is of %q", foreign, got)
			}
		}
		for _, s := range []string{"", "user.x", "trusted.glusterfs.dht", "user.glusterfs." + u.String(),
			"user.glusterfs." + u.String() + ".other", "trusted.glusterfs.zzzzzzzz-0000-0000-0000-000000000000.xtime"} {
			if n.Own(s) || Reserved(s) || n.Foreign(s) != "" {
				t.Errorf("Own(%q)", s)
			}
		}
	}
}

func TestIDsRoundTrip(t *testing.T) {
	u := NewUUID()
	got, err := ParseUUID(u.String())
	if err != nil || got != u || u.IsZero() || u == NewUUID() {
		t.Fatalf("%v -> %v, %v", u, got, err)
	}
	g, err := ParseGFID(u.String())
	if err != nil || GFID(u) != g {
		t.Fatalf("%v, %v", g, err)
	}
	for _, bad := range []string{"", "x", u.String() + "0", u.String()[:35] + "g"} {
		if _, err := ParseGFID(bad); err == nil {
			t.Errorf("ParseGFID(%q) passed", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Parse(b)
		if err != nil {
			return
		}
		if e := x.Bytes(); !bytes.Equal(e[:], b) {
			t.Fatalf("%x came back as %x", b, e)
		}
	})
}
