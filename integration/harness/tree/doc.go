// Package tree makes directory trees for tests: one of everything that a file system can hold, and many small files.
// It owns nothing after a call has returned and never removes anything. What it makes is a function of its arguments
// alone, apart from the times it does not set.
//
// A tree to replicate, and what this file system could not have in it:
//
//	leftOut, err := tree.OneOfEverything(master)
//	if err != nil {
//		t.Fatal(err)
//	}
//	t.Logf("left out here: %q", leftOut)
//
// A tree to measure with, 100,000 files of 4 KiB in directories of 1,000:
//
//	err := tree.Many(master, 100_000, 1000, 4096)
//
// What OneOfEverything makes, by the name at the root: files (sizes), modes, owners, xattrs, acl, capability, sparse,
// links, symlinks, special (FIFO, socket, devices), dirs, names, long-path, many (3,000 entries), deep (60 levels), times.
package tree
