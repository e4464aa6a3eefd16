// Package marker keeps the xtimes of one master volume: whenever something changes below the root, it marks the entry
// and every directory above it, up to the root, with one new xtime. It owns the volume's xtime attributes, the clock
// that they come from, and the files of the volume's runtime directory that begin with "marker.".
//
// What it keeps, by the numbers of the design:
//
//  1. Order of a mark: entries first, then directories deepest first, the root last, all with one xtime (mark.go for
//     events, chain.go for what a scan found). Marks are serial, so an ancestor only ever gets a newer xtime.
//  2. The clock never goes back (clock.go).
//  3. Mark after arming: the volume mark is taken once the source listens (run.go). Which source that is: arm.go.
//  11. Unmarked time is found: by a scan for ctimes since the last heartbeat, after a stop, a kill, a reboot or an
//     overflow, and slowly all the time for what events never tell (scan.go). What is written without an event while a file
//     stays open is found by looking who holds files open (held.go).
//
// After each mark it tells the workers that listen what the mark did (tell.go, package hint). Where it cannot tell all, it
// says so.
//
// It never changes content, and reads only that of mapped files of which no time tells that they were written. It never
// follows a path that others could redirect, never crosses a mount point and never marks anything once the root is not the
// one it was started on.
//
// Two volumes must not lie one within the other on one file system: each marker would take the other's marks for
// changes.
package marker
