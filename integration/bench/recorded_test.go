package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRecorded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ratios")
	r, err := readRecorded(path)
	if err != nil || len(r) != 0 {
		t.Fatalf("without a file: %v, %v", r, err)
	}
	of := func(work string, ours, peer float64) line {
		return line{work: work, ours: series{values: []float64{ours}}, peers: []series{{name: "rsync", values: []float64{peer}}}, unit: "s"}
	}
	rep := &report{cfg: config{runs: 1, scale: 1}, lines: []line{of("a, b", 1, 2), of("c", 3, 3), {work: "no peer", ours: series{values: []float64{1}}}}}
	if err := r.write(path, rep); err != nil {
		t.Fatal(err)
	}
	if r, err = readRecorded(path); err != nil || len(r) != 2 || r["a, b"] != 0.5 || r["c"] != 1 {
		t.Fatalf("read again: %v, %v", r, err)
	}
	rep = &report{cfg: config{runs: 1, scale: 1}, recorded: r, lines: []line{of("a, b", 1.2, 2), of("new", 1, 1), of("c", 4, 3)}}
	text := rep.markdown()
	for _, want := range []string{"| recorded | change |", "| 0.60 | 0.50 | +20 % |", "| 1.33 | 1.00 | +33 % |", "| 1.00 |  |  |",
		"Worse than recorded: c: the ratio was 1.00 and is 1.33\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "recorded: a, b") {
		t.Errorf("a fifth more is called worse:\n%s", text)
	}
	rep.lines = rep.lines[:1]
	if err := r.write(path, rep); err != nil {
		t.Fatal(err)
	}
	if r, err = readRecorded(path); err != nil || len(r) != 2 || r["a, b"] != 0.6 || r["c"] != 1 {
		t.Errorf("a row that was not run is forgotten: %v, %v", r, err)
	}
	if plain := (&report{cfg: config{runs: 1, scale: 1}, lines: rep.lines}).markdown(); strings.Contains(plain, "recorded") {
		t.Errorf("nothing was to be compared:\n%s", plain)
	}
	for _, bad := range []string{"0.5 a", "x\ta", "-1\ta", "NaN\ta"} {
		if err := os.WriteFile(path, []byte("# head\n\n"+bad+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readRecorded(path); err == nil || !strings.Contains(err.Error(), path+":3") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
