package slave

import (
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"georep/marker/xtime"
)

func someOwner() *Owner {
	return &Owner{Master: xtime.UUID{1}, Session: xtime.UUID{2}, Slave: xtime.UUID{3}, Root: "root", Filter: xtime.GFID{4}.String(),
		FilterSince: 5, Created: time.Unix(1_600_000_000, 0).UTC()}
}

var promotedAt = Promotion{At: time.Unix(1_700_000_000, 0).UTC(), By: "root \"x\"", Stime: xtime.FromTime(time.Unix(1_690_000_000, 0))}

// TestPromotedOwnerIsKept: what is written of a promoted slave is read back, and again of a demoted one.
func TestPromotedOwnerIsKept(t *testing.T) {
	promoted := someOwner().Promote(promotedAt, xtime.UUID{7})
	demoted := promoted.Demote()
	again := demoted.Promote(promotedAt, xtime.UUID{8})
	for name, o := range map[string]Owner{"promoted": promoted, "demoted": demoted, "again": again} {
		text, err := o.Text()
		if err != nil {
			t.Fatal(err)
		}
		have, err := ParseOwner(text)
		if err != nil || *have != o {
			t.Errorf("%s: %v: %+v, want %+v", name, err, have, o)
		}
	}
	if promoted.Epoch != 1 || demoted.Epoch != 1 || again.Epoch != 2 {
		t.Errorf("epochs %d, %d, %d", promoted.Epoch, demoted.Epoch, again.Epoch)
	}
	if demoted.Slave == promoted.Slave || !demoted.Doubtful {
		t.Error("what was on record before a demotion is believed after it")
	}
}

// TestOlderVersionsSeeAnotherMaster: a version that knows no promotions refuses the fenced master as another one's.
func TestOlderVersionsSeeAnotherMaster(t *testing.T) {
	promoted := someOwner().Promote(promotedAt, xtime.UUID{7})
	text, err := promoted.Text()
	if err != nil {
		t.Fatal(err)
	}
	var older struct{ Master, Session, Slave xtime.UUID }
	if err := toml.Unmarshal(text, &older); err != nil || older.Master != (xtime.UUID{7}) || older.Slave != (xtime.UUID{3}) {
		t.Errorf("%v: %+v", err, older)
	}
}

// TestDamagedPromotion: a file that says half of a promotion is damaged, and not one of a slave that follows its master.
func TestDamagedPromotion(t *testing.T) {
	promoted := someOwner().Promote(promotedAt, xtime.UUID{7})
	text, err := promoted.Text()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"at", "master"} {
		var kept []string
		in := false
		for line := range strings.Lines(string(text)) {
			in = in || strings.HasPrefix(line, "[promoted]")
			if !in || !strings.HasPrefix(line, key+" =") {
				kept = append(kept, line)
			}
		}
		if o, err := ParseOwner([]byte(strings.Join(kept, ""))); err == nil {
			t.Errorf("without %s: %+v", key, o)
		}
	}
}

// TestAdmitPromoted: nobody who writes is admitted, and the fenced master alone may look.
func TestAdmitPromoted(t *testing.T) {
	promoted := someOwner().Promote(promotedAt, xtime.UUID{7})
	same := func(string) bool { return true }
	for _, force := range []bool{false, true} {
		for _, master := range []xtime.UUID{{1}, {7}, {9}} {
			for _, inspect := range []bool{false, true} {
				c := Claim{Master: master, Session: xtime.UUID{2}, Force: force, Inspect: inspect, Proof: Proof{Filled: true, Slave: xtime.UUID{3}}}
				_, err := c.Admit(&promoted, same)
				if want := inspect && master == (xtime.UUID{1}); (err == nil) != want {
					t.Errorf("%+v: %v", c, err)
				}
			}
		}
	}
}
