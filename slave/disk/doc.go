// Package disk is the slave that is a directory on this host: it implements slave.Tree below one root and keeps what
// it remembers in .georep there. The agent runs it at the far end of a connection; a file:// slave runs it in the worker.
//
// It owns the root's lock, the staging area, the park and the knowledge of hard links. It never follows a symbolic
// link, never leaves the root or its file system, and never deletes anything that it has not parked before, but what a
// newer version of the same inode replaces.
//
// What it keeps of the invariants, by the part that keeps it:
//
//	5   the xtime of a directory is written only after a sync that came after everything published before (committer.writeStamps)
//	6   a failed finish holds back those above it in the same pass, and no others (apply.Holds)
//	7   contents are staged, synced, and renamed over the old version (stager, committer.run)
//	9   every operation looks at what is there and may run twice (publisher; what it then means package apply decides)
//	13  all access goes through internal/beneath
//	14  new content of an inode with several names replaces all of them, in steps where these are many (publisher.replaceGroup)
//	15  what is stale goes to parked/, and from there to trash/ before it is taken apart (park, cleaner)
//
// Tree wires the parts, which stand upon each other in this order. Each has its fields to itself.
//
//	life        until when the slave is open (life.go, stand.go)
//	store       the root and what lies in .georep, open, and every call that changes them (store.go, sys.go)
//	records     what is on record of entries, on them or beside them (records.go, room.go), as the policy has it (policy.go, fake.go)
//	reader      what only looks: Survey, Hash, Count (survey.go); Inspector is this and no more (inspector.go)
//	ownership   whose the slave is: the owner's file and the lock (setup.go, lock.go, anew.go)
//	census      what the slave holds, where its policy limits that (tally.go, usage.go, xattrsize.go)
//	finder      where an inode is in the tree (finder.go)
//	parents     the directories that the group at work changes (parents.go)
//	park        parked/ (park.go), what lies in parked directories (parkedindex.go), and trash/ (trash.go)
//	marks       dirty inodes: the journal in pending/ (package dirty, pending.go)
//	links       the names of inodes that have several (linktable.go, linkrow.go, linkcache.go, back.go, find.go)
//	uploads     contents that are sent ahead (upload.go, partial.go, extents.go)
//	cleaner     deletes what was parked, by age (clean.go) or for want of room (evict.go)
//	stager      makes complete in staging what is to be published (stage.go), with meta and record (change: meta.go)
//	leftovers   names that are parked although their inode needs them no more (leftovers.go, twice.go)
//	publisher   carries out operations (publish.go, links.go, unpark.go, prefetch.go)
//	committer   groups, syncs and stamps (commit.go, queue.go, disown.go)
//
// One goroutine, the committer, does everything that changes the tree; it takes all batches that wait as one group, so
// that they share the cost of a sync. Contents are staged by the callers' goroutines meanwhile. parents, twice, leftovers,
// publisher and committer are that goroutine's alone, and have no lock.
//
// Locks are taken in this order, and any of them may be left out:
//
//	cleaner.mu > cleaner.cleanMu > park.mu > links.mu > the lock of marks
//	cleaner.cleanMu > uploads.mu > upload.mu
//	park.mu > parkedIndex.mu
//
// What is not named here (life, queue, linkCache, usage, store.permMu, the index of package gfidindex) is the last one taken. Nobody who
// holds one of those above runs a call in cleaner.inRoom, which takes cleaner.mu.
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
