//go:build !race

package integration

// raceEnabled tells whether the tests, and so the binary, are built with the race detector.
const raceEnabled = false
