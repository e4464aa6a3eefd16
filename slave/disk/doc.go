// Package disk is the slave that is a directory on this host: it implements slave.Tree below one root and keeps its own
// books in .georep there. The agent runs it at the far end of a connection; a file:// slave runs it in the worker.
//
// It owns the root's lock, the staging area, the park and the knowledge of hard links. It never follows a symbolic
// link, never leaves the root or its file system, and never deletes anything that it has not parked before, but what a
// newer version of the same inode replaces.
//
// What it keeps of the invariants:
//
//	5   the xtime of a directory is written only after a sync that came after everything published before (settle)
//	6   a failed finish holds back those above it in the same pass, and no others (holds)
//	7   contents are staged, synced, and renamed over the old version (stage, run)
//	9   every operation looks at what is there and may run twice (the publishers)
//	13  all access goes through internal/beneath
//	14  new content of an inode with several names replaces all of them (replaceGroup)
//	15  what is stale goes to parked/, and from there to trash/ before it is taken apart (park, Clean)
//
// One goroutine, the committer, does everything that changes the tree; it takes all batches that wait as one group, so
// that they share the cost of a sync. Contents are staged by the callers' goroutines meanwhile.
//
// The files below .georep:
//
//	owner           the master and session that the slave belongs to
//	lock            held (flock) while the slave is open: pid and session of the holder
//	staging/        what is not yet published; emptied at Open
//	parked/GFID     what was purged; .1, .2 ... where there are several; u-... without a GFID on record
//	trash/          what Clean is taking apart
//	links/xx/GFID   known names of an inode that has several: "ino want\n", then names, each ended by a NUL
//	pending/GFID    the names of this inode are to be checked: its number on the master, and on the slave where a name
//	                of it was removed (0 where the slave just has fewer names than the master), and the session that
//	                made it, as the target of a symbolic link; durable while it holds (pending.go)
//	usage           what the slave holds, where its policy limits that: bytes, entries, when they were counted, and whether a
//	                session has the slave open
//
// All of it but owner and pending is advice: it is checked at use, and may vanish.
package disk
