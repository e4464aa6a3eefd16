package policy

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// units are the suffixes of sizes, each 1024 of the one before.
const units = "KMGTP"

// size reads a number of bytes, with K, M, G, T or P for powers of 1024; what follows may be iB, or B.
func size(v string) (int64, error) {
	errSize := errors.New("not a size such as 500M or 2T")
	number, binary := strings.CutSuffix(strings.ToUpper(v), "IB")
	if !binary {
		number = strings.TrimSuffix(number, "B")
	}
	shift := 0
	if last := max(len(number)-1, 0); strings.ContainsAny(number[last:], units) {
		number, shift = number[:last], 10*(strings.Index(units, number[last:])+1)
	} else if binary {
		return 0, errSize
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > math.MaxInt64>>shift {
		return 0, errSize
	}
	return int64(n) << shift, nil
}

// SizeText is a size as Set takes it, in the largest unit that needs no fraction.
func SizeText(n int64) string {
	unit := ""
	for i := 0; i < len(units) && n != 0 && n%1024 == 0; i++ {
		n, unit = n/1024, units[i:i+1]
	}
	return strconv.FormatInt(n, 10) + unit
}

// count reads a number of entries.
func count(v string) (int64, error) {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, errors.New("not a number")
	}
	return int64(n), nil
}
