package main

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMedianAndQuantile(t *testing.T) {
	for _, c := range []struct {
		values        []float64
		mid, low, p99 float64
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{3, 1, 2}, 2, 1, 3},
		{[]float64{4, 1, 2, 3}, 2.5, 1, 4},
		{[]float64{5, 5, 1}, 5, 1, 5},
	} {
		m, lo, hi := median(c.values), quantile(c.values, 0), quantile(c.values, 0.99)
		if m != c.mid || lo != c.low || hi != c.p99 {
			t.Errorf("%v: %v, %v, %v", c.values, m, lo, hi)
		}
	}
	var hundred []float64
	for i := range 100 {
		hundred = append(hundred, float64(i+1))
	}
	if p50, p99 := quantile(hundred, 0.5), quantile(hundred, 0.99); p50 != 50 || p99 != 99 {
		t.Errorf("p50 %v, p99 %v of 1 to 100", p50, p99)
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(quantile(nil, 0.5)) {
		t.Error("nothing has a median")
	}
}

// TestContest: in turn, warm-up first and not counted; who fails does not run again, and why is told.
func TestContest(t *testing.T) {
	l := &lab{cfg: config{runs: 2, warmup: 1, timeout: time.Minute}}
	var order []string
	runs := func(name string, fail error) contender {
		return contender{
			name:    name,
			prepare: func(int) error { order = append(order, "prepare "+name); return nil },
			run: func(_ context.Context, round int) (result, error) {
				order = append(order, name)
				return result{seconds: float64(10 + round), wire: 7}, fail
			},
			verify: func(int) error { order = append(order, "verify "+name); return nil },
		}
	}
	wrong := runs("wrong", nil)
	wrong.verify = func(int) error { return errors.New("differs") }
	slow := runs("slow", nil)
	slow.run = func(ctx context.Context, _ int) (result, error) {
		<-ctx.Done()
		return result{}, ctx.Err()
	}
	var got []series
	err := guarded(t.Context(), "row", io.Discard, func(h *host) {
		got = l.contest(h, runs("a", nil), runs("b", nil))
		l.cfg.warmup, l.cfg.timeout = 0, time.Microsecond
		got = append(got, l.contest(h, slow)...)
		l.cfg.timeout = time.Minute
		got = append(got, l.contest(h, wrong, runs("absent", errAbsent), runs("failed", errors.New("no")))...)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []series{
		{name: "a", values: []float64{10, 11}, wire: []float64{7, 7}},
		{name: "b", values: []float64{10, 11}, wire: []float64{7, 7}},
		{name: "slow", state: "timeout"}, {name: "wrong", state: "wrong result"}, {name: "absent", state: "not installed"},
		{name: "failed", state: "failed"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	round := "prepare a, a, verify a, prepare b, b, verify b, "
	if all := strings.Join(order, ", "); !strings.HasPrefix(all, round+round+round) || strings.Count(all, "wrong") != 2 ||
		strings.Count(all, "absent") != 2 {
		t.Errorf("the order was %s", all)
	}
}

// TestGuarded: a complaint ends the row alone, and what it began is cleaned up, last first.
func TestGuarded(t *testing.T) {
	var did []string
	var dir string
	var log strings.Builder
	err := guarded(t.Context(), "row", &log, func(h *host) {
		dir = h.TempDir()
		h.Cleanup(func() { did = append(did, "first") })
		h.Cleanup(func() { h.Fatal("in the cleanup") })
		h.Cleanup(func() { did = append(did, "last") })
		h.Logf("at %d", 7)
		h.Error("carries on")
		h.Skipf("needs %s", "luck")
		did = append(did, "never")
	})
	if err == nil || err.Error() != "carries on; needs luck; in the cleanup" {
		t.Errorf("error %v", err)
	}
	if !reflect.DeepEqual(did, []string{"last", "first"}) || log.String() != "row: at 7\n" {
		t.Errorf("did %v, said %q", did, log.String())
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	if err := guarded(t.Context(), "row", io.Discard, func(*host) {}); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	var out, errs strings.Builder
	err := run(t.Context(), []string{"-list"}, &out, &errs)
	if err != nil || strings.Count(out.String(), "\n") != len(rows()) {
		t.Errorf("-list: %v\n%s", err, out.String())
	}
	out.Reset()
	err = run(t.Context(), []string{"-list", "-rows", "ten|big.*"}, &out, &errs)
	if err != nil || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("-list of some: %v\n%s", err, out.String())
	}
	for _, args := range []string{"-rows no-such", "-rows (", "-scale 0", "-scale NaN", "-runs 0", "-warmup -1",
		"-timeout 0s", "x", "-what"} {
		if err := run(t.Context(), strings.Fields(args), &out, &errs); err == nil {
			t.Errorf("%s is taken", args)
		}
	}
}

// TestTiny runs everything on trees so small that no number means anything, so that the bench works when it is wanted.
func TestTiny(t *testing.T) {
	dir := t.TempDir()
	var out, errs strings.Builder
	args := []string{"-scale", "0.0001", "-runs", "1", "-warmup", "0", "-timeout", "5m", "-rtt", "4ms", "-out", dir}
	if err := run(t.Context(), args, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	t.Log(errs.String())
	text := out.String()
	for _, want := range []string{"first sync, 10 files of 4 KiB, LAN", "first sync, 10 files of 4 KiB, WAN",
		"one random file of 1 MiB, LAN", "one random file of 1 MiB, WAN", "1 MiB changed inside 4 MiB", "10 files, 10 changed", "100 files, 10 changed",
		"start, 100 files, nothing changed", "write to visible, LAN, p50", "write to visible, WAN, p99", "burst of 20 files",
		"rename of a directory of 10 files", "## Peak resident memory", "## How cost grows", "## System calls a file",
		"## The WAN itself", "georep, agent", "cores ("} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
	for _, bad := range []string{"failed", "FAILED", "wrong result", "timeout", "nothing measured", "no first sync"} {
		if strings.Contains(text, bad) {
			t.Errorf("%q in the report", bad)
		}
	}
	if t.Failed() {
		t.Logf("the report:\n%s\nthe log:\n%s", text, errs.String())
	}
	if written, err := os.ReadFile(filepath.Join(dir, "bench.md")); err != nil || string(written) != text {
		t.Errorf("bench.md is not what was printed: %v", err)
	}
	for _, name := range []string{"bench.svg", "growth.svg"} {
		picture, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		wellFormed(t, string(picture))
	}
}
