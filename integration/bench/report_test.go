package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
)

func values(v ...float64) []float64 { return v }

func TestMarkdown(t *testing.T) {
	r := report{cfg: config{scale: 1, runs: 3, warmup: 1},
		about: machine{cores: 2, cpu: "a | b", kernel: "Linux 6", memory: 1 << 34}}
	r.lines = []line{
		{work: "copy", unit: "s", goal: ratioGoal(0.8), note: "a note",
			ours:  series{name: "georep", values: values(1.5, 1, 2), wire: values(1_500_000, 1_500_000, 1_500_000)},
			peers: []series{{name: "rsync", values: values(3), wire: values(0)}, {name: "tar", state: "timeout"}}},
		{work: "slow", unit: "ms", goal: valueGoal("≤ 5 ms", 5), ours: series{values: values(6)}},
		{work: "broken", unit: "s", goal: ratioGoal(0.8), ours: series{state: "failed"},
			peers: []series{{name: "rsync", values: values(1)}}},
	}
	r.tables = []table{{title: "More", rows: [][]string{{"x|y"}, {"1\n2"}}, note: "said"}}
	r.failed = []string{"row: why"}
	got := r.markdown()
	for _, want := range []string{
		"2 cores (a | b), 16 GiB of memory, Linux 6",
		"| copy | 1.50 s (1.00–2.00), 1.50 MB sent | rsync 3.00 s<br>tar timeout | 0.50 | ≤ 0.8 × rsync | yes |\n",
		"| slow | 6.00 ms |  |  | ≤ 5 ms | no |\n",
		"| broken | failed | rsync 1.00 s |  | ≤ 0.8 × rsync | no |\n",
		"\n- copy: a note\n", "## More\n\n| x\\|y |\n|---|\n| 1 2 |\n\nsaid\n", "\nFAILED: row: why\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "say nothing") {
		t.Error("full scale is called small")
	}
	if r.cfg.scale = 0.5; !strings.Contains(r.markdown(), "At scale 0.5") {
		t.Error("a small scale is not told")
	}
}

func TestWords(t *testing.T) {
	for _, c := range [][2]string{
		{thousands(7), "7"}, {thousands(1000), "1,000"}, {thousands(1234567), "1,234,567"}, {size(1 << 30), "1 GiB"},
		{size(3 << 19), "1.5 MiB"}, {size(512), "512 B"}, {number(math.NaN()), "–"},
		{number(0.0123), "0.012"}, {number(12.34), "12.3"}, {number(1234.5), "1234"}, {decade(0.01), "0.01"}, {decade(1), "1"},
		{decade(1e6), "1,000,000"}, {megabytes(1500), "1.50 kB sent"},
	} {
		if c[0] != c[1] {
			t.Errorf("%q, want %q", c[0], c[1])
		}
	}
}

func TestCPUModel(t *testing.T) {
	for text, want := range map[string]string{
		"processor\t: 0\nvendor_id\t: X\nmodel name\t: Some  CPU @ 2 GHz\nmodel name\t: other\n": "Some CPU @ 2 GHz",
		"processor : 0\nModel : Board 4\n": "Board 4",
	} {
		if got := cpuModel(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := cpuModel("nothing\n"); !strings.HasSuffix(got, " processor") {
		t.Errorf("%q", got)
	}
}

// wellFormed checks that a picture is XML and that nothing in it lies outside.
func wellFormed(t *testing.T, picture string) {
	t.Helper()
	var width, height float64
	for d := xml.NewDecoder(strings.NewReader(picture)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range start.Attr {
			if a.Name.Local == "viewBox" {
				f := strings.Fields(a.Value)
				width, _ = strconv.ParseFloat(f[2], 64)
				height, _ = strconv.ParseFloat(f[3], 64)
			}
			limit, ok := map[string]float64{"x": width, "x1": width, "x2": width, "cx": width, "width": width,
				"y": height, "y1": height, "y2": height, "cy": height, "height": height}[a.Name.Local]
			if v, err := strconv.ParseFloat(a.Value, 64); ok && (err != nil || !(v >= 0 && v <= limit)) {
				t.Errorf("%s %s=%s is outside of the picture (%v)", start.Name.Local, a.Name.Local, a.Value, err)
			}
		}
	}
	if width == 0 || height == 0 {
		t.Errorf("no picture:\n%s", picture)
	}
}

func TestCurves(t *testing.T) {
	curves := []curve{
		{name: "a < b & c", hue: 0, points: []point{{10_000, 0.02}, {100_000, 0.3}, {1_000_000, 40}}},
		{name: "peer", hue: 7, dashed: true, points: []point{{10_000, 1}}},
		{name: "no place", points: []point{{0, 1}, {1, 0}, {1, math.NaN()}, {1, math.Inf(1)}, {-1, 1}}},
	}
	picture := curvesSVG("growth", "files", "seconds", curves)
	wellFormed(t, picture)
	if n := strings.Count(picture, "<circle"); n != 4 || strings.Count(picture, "<polyline") != 1 {
		t.Errorf("%d points, want 4, and one line:\n%s", n, picture)
	}
	for _, want := range []string{"a &lt; b &amp; c", ">1,000,000<", ">0.01<", ">100<", "prefers-color-scheme: dark"} {
		if !strings.Contains(picture, want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	wellFormed(t, curvesSVG("nothing", "x", "y", nil))
	wellFormed(t, curvesSVG("one", "x", "y", []curve{{name: "p", points: []point{{1, 1}}}}))
}

func TestScale(t *testing.T) {
	s := newScale([]float64{0.02, 30, 0, math.NaN(), math.Inf(1)}, 100, 500)
	for v, want := range map[float64]float64{0.01: 100, 0.1: 200, 1: 300, 10: 400, 100: 500} {
		if got := s.at(v); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v is at %v, want %v", v, got, want)
		}
	}
	if n := len(s.decades()); n != 5 {
		t.Errorf("%d decades", n)
	}
}

func TestBars(t *testing.T) {
	of := func(ours, theirs float64) line {
		return line{work: "w & w", ours: series{values: values(ours)}, peers: []series{{name: "rsync", values: values(theirs)}}}
	}
	picture := barsSVG([]line{of(1, 2), of(5, 1), of(1, 5000), {work: "alone", ours: series{values: values(1)}},
		{work: "failed", ours: series{state: "failed"}, peers: []series{{values: values(1)}}}})
	wellFormed(t, picture)
	n := strings.Count(picture, "<rect")
	if n != 3 || strings.Contains(picture, "alone") || !strings.Contains(picture, ">0.50<") {
		t.Errorf("%d bars, want 3:\n%s", n, picture)
	}
	wellFormed(t, barsSVG(nil))
}

func TestParseCounts(t *testing.T) {
	const text = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 50.00    0.000211           4        51         3 openat
 50.00    0.000100           4        20           read
------ ----------- ----------- --------- --------- ----------------
100.00    0.000311           4        71         3 total
`
	counts, complete, err := parseCounts(strings.NewReader(text))
	if err != nil || !complete || len(counts) != 2 || counts["openat"] != 51 || counts["read"] != 20 {
		t.Errorf("%v, %v, %v", counts, complete, err)
	}
	if got := perFile(counts, 10); got[0] != "7.1" || got[1] != "openat 5.1, read 2.0" {
		t.Errorf("%q", got)
	}
	for cut := range len(text) - len(" total\n") {
		if _, complete, err := parseCounts(strings.NewReader(text[:cut])); complete || err != nil {
			t.Fatalf("%d bytes are taken for all (%v)", cut, err)
		}
	}
}
