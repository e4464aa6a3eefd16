package bandwidth

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

const (
	// Least is the smallest limit but none, in bytes a second. What is less was meant otherwise.
	Least = 1 << 10
	// Most is the greatest, in bytes a second: no link is faster, and all sums with it are far from overflowing.
	Most = 1 << 40 // 1024G
)

// unit is a suffix and what it multiplies with.
type unit struct {
	suffix string
	bytes  float64
}

// units gives the suffixes, which are rsync's, in lower case. The longer ones come first, for "mib" ends in "b".
func units() []unit {
	const kilo, kibi = 1000, 1 << 10
	return []unit{
		{"kib", kibi}, {"mib", kibi * kibi}, {"gib", kibi * kibi * kibi},
		{"kb", kilo}, {"mb", kilo * kilo}, {"gb", kilo * kilo * kilo},
		{"k", kibi}, {"m", kibi * kibi}, {"g", kibi * kibi * kibi},
		{"b", 1},
	}
}

// Parse reads a limit: a number, with a decimal point if need be, and K, M or G for powers of 1024 bytes a second, as
// are KiB, MiB and GiB, or KB, MB and GB for powers of 1000. Upper and lower case are the same. 0 means none. Without
// a suffix the number means bytes, which is not what rsync takes it for; so what is less than 1K is refused, since it
// was probably meant otherwise. A fraction of a byte is cut off. The error does not repeat s.
func Parse(s string) (bytesPerSecond int64, err error) {
	number, factor := strings.ToLower(s), 1.0
	for _, u := range units() {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = n, u.bytes
			break
		}
	}
	if number == "" || strings.Trim(number, "0123456789.") != "" {
		return 0, errors.New("not a rate such as 500K, 1.5M or 10MiB (bytes a second), or 0 for no limit")
	}
	v, err := strconv.ParseFloat(number, 64)
	switch v *= factor; {
	case err != nil && !math.IsInf(v, 0):
		return 0, errors.New("not a rate such as 500K, 1.5M or 10MiB (bytes a second), or 0 for no limit")
	case v == 0:
		return 0, nil
	case v < Least:
		return 0, errors.New("less than 1K, which is 1024 bytes a second; a K or M after the number may be missing")
	case v > Most:
		return 0, errors.New("more than 1024G; write 0 for no limit")
	}
	return int64(v), nil
}

// Format is a short way to write a limit, which Parse reads as exactly the same, without a suffix if it must be.
// Whatever is not positive is 0.
func Format(bytesPerSecond int64) string {
	if bytesPerSecond <= 0 {
		return "0"
	}
	best := strconv.FormatInt(bytesPerSecond, 10)
	for _, u := range []unit{{"K", 1 << 10}, {"KB", 1e3}, {"M", 1 << 20}, {"MB", 1e6}, {"G", 1 << 30}, {"GB", 1e9}} {
		// Up to three decimals are for people; more would be a riddle.
		text := strconv.FormatFloat(float64(bytesPerSecond)/u.bytes, 'f', 3, 64)
		text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + u.suffix
		if back, err := Parse(text); err == nil && back == bytesPerSecond && len(text) <= len(best) {
			best = text
		}
	}
	return best
}
