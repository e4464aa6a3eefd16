package size

import (
	"math"
	"testing"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]int64{
		"0": 0, "7": 7, "7b": 7, "1K": 1 << 10, "1k": 1 << 10, "1KiB": 1 << 10, "1KB": 1000, "1.5M": 3 << 19, "10MB": 10_000_000,
		"10MiB": 10 << 20, "2G": 2 << 30, "2gb": 2_000_000_000, "3T": 3 << 40, "3TB": 3e12, "1P": 1 << 50, "1PB": 1e15, "5.M": 5 << 20,
		".5k": 512, "1.0001K": 1024, "9223372036854775807": math.MaxInt64,
	} {
		if got, err := Parse(s); got != want || err != nil {
			t.Errorf("Parse(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "K", ".", "b", "ib", "5ib", "kb", "-1", "+1M", "1e6", "0x10", "inf", "nan", "1.2.3M", "1 M", " 1M", "1M ",
		"1Mbit", "1MK", "1M/s", "1_000K", "1,5M", "١K", "1\x00M", "8192P", "9223372036854775808"} {
		if got, err := Parse(s); err == nil || got != 0 {
			t.Errorf("Parse(%q) = %d, %v", s, got, err)
		}
	}
}

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1: "1", 1500: "1500", 1 << 10: "1K", 500 << 20: "500M", 10_000_000: "10MB",
		3 << 19: "1.5M", 1 << 40: "1T", 1_000_001: "1000001", math.MaxInt64: "9223372036854775807"} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

// FuzzParse holds Format to be the inverse of Parse.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "500K", "1.5M", "10MiB", "1.537G", "1025", "x", "12.345678MB", "7PB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			return
		}
		if back, err := Parse(Format(n)); n < 0 || back != n || err != nil {
			t.Fatalf("%q is %d, shown as %q, which is %d, %v", s, n, Format(n), back, err)
		}
	})
}
