package nearest

import "testing"

func TestWord(t *testing.T) {
	words := []string{"sync", "sync-jobs", "start", "stop", "status", "settle", "max-delay"}
	for word, want := range map[string]string{
		"sync-job": "sync-jobs", "syncjobs": "sync-jobs", "strat": "start", "stats": "status", "setle": "settle", "max-dealy": "max-delay",
		"sotp": "stop", "xyz": "", "": "", "something-else": "", "pq": "",
	} {
		if got := Word(word, words); got != want {
			t.Errorf("%q is taken for %q, want %q", word, got, want)
		}
	}
	if got := Hint("sync-job", words); got != "; did you mean sync-jobs?" {
		t.Errorf("the hint is %q", got)
	}
	if got := Hint("nothing-like-it", words); got != "" {
		t.Errorf("the hint is %q", got)
	}
}
