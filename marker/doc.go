// Package marker keeps the xtimes of one master volume: whenever something changes below the root, it marks the entry
// and every directory above it, up to the root, with one new xtime. It owns the volume's xtime attributes, the clock
// that they come from, and the files of the volume's runtime directory that begin with "marker.".
//
// What it keeps, by the numbers of the design:
//
//  1. Order of a mark: entries first, then directories deepest first, the root last, all with one xtime (mark.go for
//     events, chain.go for what a scan found). Marks are serial, so an ancestor only ever gets a newer xtime.
//  2. The clock never goes back (clock.go).
//  3. Mark after arming: the volume mark is taken once the source listens (run.go). Which source that is: opensource.go.
//  11. Unmarked time is found: by a scan for ctimes since the last heartbeat, after a stop, a kill, a reboot or an
//     overflow, and slowly all the time for what events never tell (package scan). What is written without an event while a file
//     stays open is found by looking who holds files open (held.go).
//
// After each mark it tells the workers that listen what the mark did (tell.go, package hint). Where it cannot tell all, it
// says so.
//
// Where things are:
//
//	run.go           a marker from its start to its end
//	opensource.go    which source of events is used
//	live.go          events, from fanotify (handles.go finds directories) or inotify (watch.go), become batches
//	mark.go          a batch is marked; core.go marks one entry
//	chain.go         what a scan found is marked
//	bump.go          a directory that takes no mark gets a later ctime
//	arrivals.go      directories that leave the volume and come into it
//	detached.go      inodes that changed through a name that is gone
//	tell.go          what a mark did becomes a hint
//	scanner.go       when to scan, and for what; uncover.go after a mount has ended (mounts.go)
//	held.go          files that are held open for writing; heldcheck.go tells whether they were written
//	beat.go          the heartbeat: up to when all is marked
//	clock.go         where xtimes come from; tick.go hands out one that no entry has
//	housekeeping.go  what is done each second; status.go and troubles.go are what is told
//
// marker/scan finds what changed while no event told, marker/coverage knows of which directories ctimes tell, marker/tree is the
// tree that all of them work on.
//
// Order of the locks: writing (the status), then core.mu (a mark), then beats.mu, then mounts.mu, then any of the others
// (hiddenHolders, refusals, coverage, hint and those of package scan). Of the others none is taken while one is held. System calls on the
// tree are made under core.mu, by a mark, and under mounts.mu, by a look at what is mounted: the heartbeat asks for that under beats.mu.
//
// It never changes content, and reads only that of mapped files of which no time tells that they were written. It never
// follows a path that others could redirect, never crosses a mount point and never marks anything once the root is not the
// one it was started on.
//
// Two volumes must not lie one within the other on one file system: each marker would take the other's marks for
// changes.
package marker
