package crawler

import (
	"testing"
	"testing/synctest"
	"time"

	"georep/marker/xtime"
)

// TestLastSyncedGoesWithTheStamps: the marks of a load that never ends are seen while a crawl is under way, and the stamp of that
// crawl lies between them. LastSynced is then what was seen last at or before it, never more, and no older than the lag says.
func TestLastSyncedGoesWithTheStamps(t *testing.T) {
	began := time.Now().Add(-time.Hour)
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	x := func(s int) xtime.Time { return xtime.FromTime(at(s)) }
	f := &follower{c: New(Options{Tree: &cleaned{}, VolumeMark: func() xtime.Time { return 1 }}), news: make(chan struct{}, 1)}
	for s := range 1000 {
		f.claims.note(claim{x(s), at(s).Add(-time.Millisecond)}) // everything up to then was marked
		if s%10 != 9 {
			continue
		}
		stamp := s - 4 // a crawl by hints reaches as far as those did
		f.passed(x(s), Outcome{Stime: x(stamp), CoveredXtime: x(stamp), Hinted: true, Waiting: s%20 == 9})
		if got, want := f.prog.LastSynced, at(stamp).Add(-time.Millisecond); !got.Equal(want) {
			t.Fatalf("stamped %v: LAST_SYNCED is of %v, want %v", stamp, got.Sub(began), want.Sub(began))
		}
	}
	last := f.prog.LastSynced
	for s := 1000; s < 2000; s++ { // nothing is stamped
		f.claims.note(claim{x(s), at(s)})
	}
	f.passed(x(2000), Outcome{})
	if f.prog.LastSynced != last {
		t.Errorf("nothing was stamped, and LAST_SYNCED is of %v", f.prog.LastSynced.Sub(began))
	}
	if n := len(f.claims); n > maxClaims {
		t.Errorf("%d claims are kept", n)
	}
	f.passed(x(2000), Outcome{Stime: x(1800), CoveredXtime: x(1800), Hinted: true})
	if got := f.prog.LastSynced; got.After(at(1800)) || got.Before(at(1780)) {
		t.Errorf("stamped 1800: LAST_SYNCED is of %v", got.Sub(began))
	}
	f.passed(x(2000), Outcome{Stime: x(2000), CoveredXtime: x(2000)})
	if got := f.prog.LastSynced; got.After(at(2000)) || got.Before(at(1990)) || len(f.claims) != 0 {
		t.Errorf("stamped 2000: LAST_SYNCED is of %v, %d claims are left", got.Sub(began), len(f.claims))
	}
}

// TestLagCoversWhatIsNotMarked: what the marker has not come to is behind, too, whatever the marks say.
func TestLagCoversWhatIsNotMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &follower{c: New(Options{Tree: &cleaned{}, VolumeMark: func() xtime.Time { return 1 }})}
		now := time.Now()
		f.coveredXtime = xtime.FromTime(now.Add(-4 * time.Second))
		f.beat = now.Add(-time.Second)
		if lag := now.Sub(f.behind()); lag < 3*time.Second || lag > 5*time.Second {
			t.Errorf("lag %v, want 4 s: the marker keeps up", lag)
		}
		f.beat = now.Add(-20 * time.Second)
		if lag := now.Sub(f.behind()); lag < 20*time.Second || lag > 21*time.Second {
			t.Errorf("lag %v, and the marker was last seen 20 s ago", lag)
		}
	})
}
