// Package sftp is the slave on a host where nothing of ours runs: it implements slave.Tree over SFTP sessions, with an
// index (slave/sftp/index) for what the files there cannot keep: GFIDs, xtimes, nanoseconds, xattrs, and where the account
// may not have them, owners, devices, FIFOs and symbolic links.
//
// It owns the sessions it opens, the lease on the slave and everything in .georep there. It never believes the index where
// the files say otherwise (size, mtime, kind), never follows a symbolic link that it can see, and never deletes what it has
// not parked, but what a newer version of the same inode replaces.
//
// What it keeps of the invariants, by the part that keeps it:
//
//	5   stamps are written after a flush of the index that came after all changes before, and after the directories that
//	    were changed are synced, where the server can (stamper.round, changer.flush)
//	6   a failed finish holds back those above it in the same pass, and no others (apply.Holds)
//	7   contents are staged and renamed over the old version (stager, publisher)
//	9   every operation looks at what is there and may run twice (publisher; what it then means package apply decides)
//	13  parents are looked at before they are used; the protocol has no way to keep others from changing them after that (dirs)
//	14  new content of an inode with several names replaces all of them; they are hard links where the server makes them,
//	    copies where not (batch.replaceGroup)
//	15  what is stale goes to parked/, and from there to trash/ before it is taken apart (park, cleaner)
//
// Tree wires the parts, which stand upon each other in this order. Each has its fields to itself.
//
//	life        until when the slave is open (life.go)
//	host        the account's SFTP sessions, the slave's root there, and requests over any of them (host.go)
//	session     begins the sessions of one opening, watches them, and ends them (session.go)
//	space       why the server refuses to write, where that is for want of room (space.go)
//	abilities   what the server, and the account on it, can do; how meta is set (abilities.go)
//	records     what is on record of entries, and whether it is true of what stands there (records.go, dirs.go)
//	reader      what only looks: Survey (survey.go, listing.go), Hash (hash.go), Count (count.go); Inspector is this and no more
//	            (inspector.go, examine.go), and Restore reads by it (restore.go)
//	ownership   whose the slave is: the owner's file (owner.go) and the lease (lease.go)
//	changer     notes changes in the journal, brings them to the index (change.go, store.go), and makes both durable (flush.go, dirtimes.go)
//	park        parked/ (park.go), and what lies in parked directories (parkedindex.go)
//	links       the names of inodes that have several (linktable.go, linkdirs.go, find.go)
//	uploads     contents that are sent ahead (upload.go)
//	cleaner     deletes what was parked, by age (clean.go, namelist.go) or for want of room (evict.go)
//	stager      makes complete in staging what is to be published (stage.go, stagedfile.go)
//	busy        has operations wait that would disturb each other (busy.go)
//	leftovers   names that are parked although their inode is in the tree (leftovers.go)
//	stamper     writes stamps after what they vouch for (stamps.go)
//	publisher   carries out batches (batch.go, order.go): each operation on a goroutine of its own, once those are through that it depends
//	            on (publish.go, mkdir.go, links.go, parkop.go)
//
// A change is made in this order: its intent is written to the journal, unless neither the index nor the journal has
// anything under that name; the change; the index, in memory. The index is written when something is stamped, when it has changed a lot, and at Close. A
// cut at any moment leaves entries that the journal tells to drop, and files without an entry, which the crawler compares.
//
// Locks are taken in this order, and any of them may be left out:
//
//	roomMaker.mu > park.mu > busy.inodes > busy.names > park.parking > links.mu
//	park.parking > changer.flushMu > stamper.mu
//	busy.inodes > records.idMu
//	uploads.mu > upload.mu
//	listings.mu > listing.mu
//
// What is not named here (life.closeMu, spaceCheck.mu, changer.changedMu, parkedIndex.mu, twice.mu, and those of package index) is the last
// one taken of this package's. Whoever makes a request may hold any of them but closeMu, changedMu, twice.mu, upload.mu, stamper.mu and those
// of listings.
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
