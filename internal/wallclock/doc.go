// Package wallclock tells when somebody sets this host's clock. A Watch compares the wall clock with the time since the host was
// started, which nobody can set. NTP slews both alike, so only a step changes their difference.
//
// It owns nothing but what it has seen. It never sets a clock, and it cannot know of steps from before it was made.
package wallclock
