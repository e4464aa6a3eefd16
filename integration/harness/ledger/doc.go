// Package ledger changes a tree and keeps books of it, so that it can tell of any state of a replica, at any moment of the
// replication, whether that holds what its stamps claim (invariant 5): for every directory, all that the master had in and
// below it at the xtime of its stamp.
//
// Every file's content names its inode and its version, and can be told from a part of itself. The books have the whole
// state of the master at many moments (Note), and the xtime that covers each of them, which the marker tells (Cover): every
// change before that moment carries an xtime of at most that. So a stamp not older than the xtime claims that whole state,
// but for what the log of names and the versions say has changed since.
//
// It owns everything in the directory it is given; nothing else may write there. A Ledger may be used by many goroutines.
package ledger
