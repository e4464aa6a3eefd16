package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/leak"
	"georep/status"
)

// TestAgentIsConfined: the agents of a session, all its streams', and the marker have given up what they do not need, the
// status says so, and the session does all that it did before.
func TestAgentIsConfined(t *testing.T) {
	master, slave := twoSides(t, t.TempDir())
	s := newSession(t, master, slave)
	if err := os.WriteFile(filepath.Join(master, "f"), []byte("one"), 0o644); err != nil {
		t.Fatal(err)
	}
	// The hook of the slave's host is run beside them, by a process that only hears of paths.
	told := filepath.Join(t.TempDir(), "told")
	s.must(s.farRun("volume", "set", "copy", "hook-command", "/bin/sh -c 'cat >>"+told+"'"))
	s.must(s.farRun("volume", "set", "copy", "hook-changed-pattern", "*.html", "*.css"))
	// hears changes something again and again: what changes first may be told with "all".
	hears := func(words, change string) {
		t.Helper()
		deadline := time.Now().Add(patience)
		for i := 0; ; i++ {
			text, _ := os.ReadFile(told)
			if strings.Contains(string(text), words) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("the hook never heard of %s, but: %s", words, text)
			}
			writeFile(t, filepath.Join(master, change), fmt.Sprint(i))
			pause(t, 100*time.Millisecond)
		}
	}
	s.must(s.start("--sync-jobs", "3", "--retry-max", "1s"))
	s.waitSynced()
	st := s.waitStatus("it says what confines them", func(st status.Status) bool {
		return strings.Contains(st.Confined, "the agent by") && strings.Contains(st.Confined, "the marker by")
	})
	if want := "the agent by no_new_privs, capabilities, landlock, seccomp; the marker by no_new_privs, capabilities, seccomp"; st.Confined != want {
		t.Errorf("it says %q, want %q", st.Confined, want)
	}
	found := map[string]int{}
	for _, pid := range append(leak.Processes(binary, "GEOREP_STATE_DIR", s.state), leak.Processes(binary, "GEOREP_STATE_DIR", s.far)...) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		command, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || err2 != nil {
			continue // it has ended
		}
		for _, kind := range []string{"\x00agent", "\x00marker"} {
			if !strings.Contains(string(command), kind) {
				continue
			}
			found[kind[1:]]++
			for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("process %d, %q, lacks %s", pid, command, want)
				}
			}
		}
	}
	if found["agent"] < 1 || found["marker"] != 1 {
		t.Errorf("%v processes", found)
	}
	hears(`"all":true`, "any")
	hears(`"page.html"`, "page.html")
	// What a killed agent has not told the next one says with "all".
	if err := os.Truncate(told, 0); err != nil {
		t.Fatal(err)
	}
	s.kill(s.agentPid())
	hears(`"all":true`, "any")
	hears(`"new.css"`, "new.css")
	if text, err := os.ReadFile(told); err != nil || strings.Contains(string(text), `"any"`) {
		t.Errorf("the hook heard of what its pattern leaves out (%v): %s", err, text)
	}
	s.waitSynced()
	s.equal()
}
