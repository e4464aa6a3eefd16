// Package compare judges whether two directory trees are the same in everything that POSIX keeps: types, modes, owners,
// sizes, contents, times in nanoseconds, device numbers, symlink targets, extended attributes with ACLs and
// capabilities, hard links and holes. Trees is our own judge and knows no limit of path length; Rsync asks real rsync.
//
// It owns nothing but the descriptors it opens for the time of a call. It never writes, never follows a symlink, and
// leaves access times alone where the kernel lets it.
//
// In a test of georep, with the master's tree and the slave's:
//
//	compare.MustEqual(t, master, slave, compare.Replica())
//	if lines := compare.Rsync(t, master, slave, "/"+tree.LongTop); len(lines) > 0 {
//		t.Errorf("rsync would change %q", lines)
//	}
//
// and while replication still runs, until both are the same or the time is over:
//
//	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
//	defer cancel()
//	if err := compare.Wait(ctx, master, slave, compare.Replica()); err != nil {
//		t.Fatal(err)
//	}
//
// The walk goes down both trees together, name by name in byte order, and holds one descriptor a level and tree. Its
// memory grows with the largest directory and with the number of files that have several names, not with the tree.
//
// What the judges cannot see: Trees takes no notice of inode flags (chattr), of project ids, and of times other than the
// last modification. rsync sees no paths over PATH_MAX, does not tell a block from a character device of the same
// number, and only sees a hard link too few, never one too many. Its filters were tried with rsync 3.2.7 and 3.5.0.
package compare
