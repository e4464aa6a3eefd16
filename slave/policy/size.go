package policy

import (
	"errors"
	"strconv"

	"georep/internal/size"
)

// SizeText is a size as Set takes it.
func SizeText(n int64) string { return size.Format(n) }

// count reads a number of entries. It takes no suffix: entries are counted, not measured.
func count(v string) (int64, error) {
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, errors.New("not a number")
	}
	return int64(n), nil
}
