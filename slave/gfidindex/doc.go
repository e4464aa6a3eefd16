// Package gfidindex remembers, for every inode of the master that a slave has, where on the slave it is: the directory that
// it lies in, by GFID, and its name there. So an inode is found without a listing, and a directory that moves with
// everything in it changes one entry.
//
// It is advice. Whoever asks checks in the tree what it says; an entry that is lost, or late, costs the long way only.
// Nothing here is ever synced for its own sake. Of an inode with several names the last that was told is remembered.
//
// It owns one directory:
//
//	log-S            what was added last, in order; all of it is in memory too, and bounded
//	run-FROM-TO      what the logs FROM to TO held, sorted by key; a full log becomes a run, and runs of about the same
//	                 size are merged, so that there are few, and writing is sequential
//
// A file that another one replaces is removed only when Synced says that the new one is durable. Memory: the log, and 8
// bytes for every 256 entries. It never looks at the tree itself.
package gfidindex
