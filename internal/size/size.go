// Package size reads and shows numbers of bytes as people write them, for every setting alike: K, M, G, T and P are powers of
// 1024, as rsync and rclone have them, and so are KiB, MiB ...; KB, MB ... are powers of 1000. Upper and lower case are the same.
package size

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// letters are the units, each the next power.
const letters = "kmgtp"

// It shows what is accepted; the caller says which setting it was.
var errSize = errors.New("not a size such as 500K, 1.5M or 10MB")

// Parse reads a number of bytes, with a decimal point if need be. A fraction of a byte is cut off.
// The error does not repeat s. Negative numbers, and those beyond an int64, are refused.
func Parse(s string) (int64, error) {
	number, factor := split(strings.ToLower(s))
	if number == "" || strings.Trim(number, "0123456789.") != "" {
		return 0, errSize
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil && n <= math.MaxInt64/factor {
		return n * factor, nil
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v*float64(factor) >= math.MaxInt64 {
		return 0, errSize
	}
	return int64(v * float64(factor)), nil
}

// split takes the suffix off, and gives what it multiplies with. A number without a suffix is in
// bytes. It gives no number for "ib" alone, which Parse refuses.
func split(s string) (number string, factor int64) {
	base := int64(1024)
	number, binary := strings.CutSuffix(s, "ib")
	if !binary {
		var bytes bool
		if number, bytes = strings.CutSuffix(s, "b"); bytes {
			base = 1000
		}
	}
	factor = 1
	last := max(len(number)-1, 0)
	power := strings.Index(letters, number[last:]) + 1
	if number == "" || power == 0 {
		if binary {
			return "", 1 // 5ib
		}
		return number, 1
	}
	for range power {
		factor *= base
	}
	return number[:last], factor
}

// Format is a short way to write n, which Parse reads as exactly the same, without a suffix if it
// must be. Up to three decimals are for people; more would be a riddle. It asks Parse, so the two
// cannot drift apart.
func Format(n int64) string {
	best := strconv.FormatInt(n, 10)
	for i := range letters {
		unit := strings.ToUpper(letters[i : i+1])
		for _, u := range []string{unit, unit + "B"} {
			_, factor := split(strings.ToLower("1" + u))
			text := strconv.FormatFloat(float64(n)/float64(factor), 'f', 3, 64)
			text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + u
			if back, err := Parse(text); err == nil && back == n && len(text) <= len(best) {
				best = text
			}
		}
	}
	return best
}
