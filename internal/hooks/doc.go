// Package hooks tells a command and a URL of a session's events, one after the other, as the journal has them (package
// events).
//
// Each hook has a goroutine of its own that reads the journal, and nothing waits for it. An event counts as told once the
// command ended with 0 or the server answered with 2xx. Its sequence number is then put into a file beside the journal, durably. So
// after a kill each event is told at least once. What fails is tried again with growing pauses for as long as it takes. The
// queue is the journal, which is bounded: where it turned over before an event could be told, the next one says how many
// are lost.
//
// hooks.go has the loop and the record of what was told, deliver.go how one event is told.
package hooks
