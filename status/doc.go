// Package status is what a session says of itself to others: the status file that its monitor writes, the pid file
// that shows that the monitor lives, and how both are shown to people and to programs.
//
// A status is written whole, so a reader never meets half of one and needs no lock. A pid file counts only as long as
// its lock is held, which ends with the process however it ends; a status that outlived its monitor is therefore
// never believed (Status.Now).
//
// status.go has the types and their JSON, which is an interface: scripts go by the names, so each keeps its
// meaning. file.go writes and reads the status file, pid.go the pid file; truth.go makes of both what is true now;
// table.go and jsonwriter.go show it, and window.go measures rates. The way of a status: the monitor's machine ->
// Write -> the file -> Load in the process of whoever asks -> WriteTable or WriteJSON.
//
// It knows nothing of sessions or workers beyond their status, and never changes anything but these two files.
package status
