//go:build !race

package confine

// reports is where the race detector would write.
func reports() []string { return nil }
