// Package sftp is the slave on a host where nothing of ours runs: it implements slave.Tree over SFTP sessions, with an
// index (slave/sftp/index) for what the files there cannot keep: GFIDs, xtimes, nanoseconds, xattrs, and where the account
// may not have them, owners, devices, FIFOs and symbolic links.
//
// It owns the sessions it opens, the lease on the slave and everything in .georep there. It never believes the index where
// the files say otherwise (size, mtime, kind), never follows a symbolic link that it can see, and never deletes what it has
// not parked, but what a newer version of the same inode replaces.
//
// What it keeps of the invariants:
//
//	5   stamps are written after a flush of the index that came after all changes before, and after the directories that
//	    were changed are synced, where the server can (settle)
//	6   a failed finish holds back those above it in the same pass, and no others (apply.Holds)
//	7   contents are staged and renamed over the old version
//	9   every operation looks at what is there and may run twice
//	13  parents are looked at before they are used; the protocol has no way to keep others from changing them after that
//	14  new content of an inode with several names replaces all of them; they are hard links where the server makes them,
//	    copies where not
//	15  what is stale goes to parked/, and from there to trash/ before it is taken apart
//
// A change is made in this order: its intent is written to the journal, unless neither the index nor the journal has
// anything under that name; the change; the index, in memory. The index is written when something is stamped, when it has changed a lot, and at Close. A
// cut at any moment leaves entries that the journal tells to drop, and files without an entry, which the crawler compares.
//
// The files below .georep:
//
//	owner           the master and session that the slave belongs to, as slave/disk has it
//	lease           who is using the slave; it changes every few seconds
//	index/xx/ID     the index; journal.0, journal.1 its journal
//	staging/        what is not yet published; emptied at Open
//	partial/        contents that are sent ahead: GFID, and GFID.got with the ranges that are there for certain
//	parked/GFID     what was purged
//	trash/          what Clean is taking apart
package sftp
