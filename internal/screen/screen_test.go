package screen

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"georep/internal/health"
	"georep/status"
)

func checked(list ...status.Status) (out []health.Checked) {
	for _, s := range list {
		out = append(out, health.Checked{Status: s, Verdict: health.Judge(s, health.Limits{})})
	}
	return out
}

func active(master, slave string, lag float64) status.Status {
	return status.Status{Master: master, Slave: slave, State: status.Active, LagSeconds: lag, LastSynced: status.Time{Time: time.Unix(1, 0)}}
}

var now = time.Unix(1_800_000_000, 0)

// lines are those of a screen, without colours, and checked for what must not be there.
func lines(t *testing.T, text string, v View) []string {
	t.Helper()
	body, ok := strings.CutPrefix(text, "\x1b[H")
	if !ok || !strings.HasSuffix(body, "\x1b[K\x1b[J") {
		t.Fatalf("%q", text)
	}
	all := strings.Split(strings.TrimSuffix(body, "\x1b[K\x1b[J"), "\x1b[K\r\n")
	if len(all) > v.Height {
		t.Errorf("%d lines on a screen of %d", len(all), v.Height)
	}
	for i, line := range all {
		if !v.Colour && strings.Contains(line, "\x1b") || v.Colour && strings.Count(line, "\x1b[")%2 != 0 {
			t.Errorf("%dx%d: %q", v.Width, v.Height, line)
		}
		all[i] = strip(line)
		if n := width(all[i]); n > v.Width {
			t.Errorf("%d columns, of %d: %q", n, v.Width, all[i])
		}
		for _, r := range all[i] {
			if r < ' ' || r == 0x7f || r == 0x202e || !v.Unicode && r > 0x7f && r != 'é' {
				t.Errorf("%q comes out raw: %q", r, all[i])
			}
		}
	}
	return all
}

// TestFits: whatever the size and the names, no line is too long and no screen too high.
func TestFits(t *testing.T) {
	bad := active("data\x1b[2J", "root@backup.example.org::copy\u202e\n"+strings.Repeat("é", 90), 7300)
	bad.State, bad.Reason = status.Faulty, strings.Repeat("connection refused; ", 20)
	busy := active("home", "h::v", 3)
	busy.Rates.BytesContent, busy.Pending = 123e6, status.Pending{Entries: 3, Bytes: 1 << 50}
	list := checked(busy, bad, status.New("new", "file:///x"))
	for i := range 30 {
		list = append(list, checked(active("m", fmt.Sprint("h::", i), 1))...)
	}
	for _, width := range []int{0, 20, 33, 40, 60, 79, 80, 132, 400} {
		for _, height := range []int{0, 4, 5, 24, 100} {
			for _, colour := range []bool{false, true} {
				var s Screen
				v := View{Host: "host", Now: now, Width: width, Height: height, Colour: colour, Unicode: colour}
				if width%2 == 0 {
					v.Trouble = "read \x1b[2J" + strings.Repeat("session.toml ", 20)
				}
				seen := v
				seen.Width, seen.Height = max(width, 20), max(height, 4)
				lines(t, s.Draw(list, v), seen)
			}
		}
	}
}

func TestScreen(t *testing.T) {
	bad := active("mail", "root@backup.example.org::mail", 7300)
	bad.State, bad.Reason = status.Faulty, "connection refused"
	busy := active("home", "root@backup.example.org::home", 0.25)
	busy.Rates.BytesContent = 3.5e6
	list := checked(busy, active("data", "h::v", 12), bad)
	var s Screen
	v := View{Host: "paris", Now: now, Width: 80, Height: 24, Unicode: true}
	got := lines(t, s.Draw(list, v), v)
	want := []string{
		"georep on paris  1 critical, 2 in order                                 " + now.Local().Format("15:04:05"),
		"",
		"  SESSION                             STATE          LAG  for 1 min         RATE",
		"■ mail → root@backup.e…mple.org::mail Faulty 2 h █ -",
		"    connection refused",
	}
	for i, line := range want {
		if strings.Join(strings.Fields(got[i]), " ") != strings.Join(strings.Fields(line), " ") {
			t.Errorf("line %d is\n%q, want\n%q", i, got[i], line)
		}
	}
	if !strings.Contains(got[5], "data → h::v") || !strings.Contains(got[6], "3.3 MiB/s") || !strings.Contains(got[6], "250 ms") {
		t.Errorf("%q", got)
	}
	if plain := lines(t, s.Draw(list, View{Now: now, Width: 80, Height: 24}), View{Now: now, Width: 80, Height: 24}); !strings.HasPrefix(plain[3], "X mail -> ") {
		t.Errorf("%q", plain[3])
	}
	if empty := lines(t, s.Draw(nil, v), v); len(empty) != 3 || empty[2] != "no sessions" {
		t.Errorf("%q", empty)
	}
}

// TestSparkline: a minute, of which each column is the worst of six seconds.
func TestSparkline(t *testing.T) {
	var s Screen
	v := View{Width: 120, Height: 9, Unicode: true}
	var last []string
	for i := range 66 {
		v.Now = now.Add(time.Duration(i) * time.Second)
		lag := float64(i % 6)
		if i == 62 {
			lag = 20
		}
		last = lines(t, s.Draw(checked(active("m", "h::v", lag)), v), v)
	}
	if !strings.Contains(last[3], "▂▂▂▂▂▂▂▂▂█") {
		t.Errorf("%q", last[3])
	}
	// A host whose clock began in 1970.
	if old := lines(t, s.Draw(checked(active("m", "h::v", 1.8e9)), v), v); !strings.Contains(old[3], "█ ") {
		t.Errorf("%q", old[3])
	}
	gone := lines(t, s.Draw(checked(active("n", "h::v", 0)), v), v)
	if len(s.lags) != 1 || !strings.Contains(gone[3], "         ▁") {
		t.Errorf("%q, %v", gone[3], s.lags)
	}
}
