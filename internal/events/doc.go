// Package events is the journal of what has happened to a session: a bounded list of events in the session's state
// directory, written by the session's monitor and read by anyone.
//
// The journal is two files of JSON lines. When the newer one is full it takes the place of the older one. A line
// counts once its newline is there, so what a killed monitor left of a line is passed over, and the next monitor cuts it
// off. Nothing is synced: after a power cut the last seconds may be missing.
//
// Each event has a sequence number, one more than the one before it, also across restarts. A gap in the numbers is
// therefore an event that is lost: by a full disk, by a power cut, or because the files turned over.
//
// event.go has the events, journal.go the writer, read.go the readers. It knows nothing of sessions beyond their names,
// and never changes anything but its two files.
package events
