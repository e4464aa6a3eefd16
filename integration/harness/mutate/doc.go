// Package mutate does random things to a live tree, the things that users and programs do: it creates, overwrites,
// saves atomically, links, renames, exchanges, replaces and removes. What it does is a function of the seed and of what
// it did before, so a failing seed fails again.
//
// It owns everything in the directory it is given and keeps a model of it in memory; nothing else may write there
// meanwhile. It never reads the tree to decide, never leaves the directory, and never removes the directory itself.
//
// While replication runs, change the master, and show what was done when the slave differs in the end:
//
//	m, err := mutate.New(master, seed, mutate.Options{Profile: "links"})
//	if err != nil {
//		t.Fatal(err)
//	}
//	if err := m.Run(ctx, 5000, time.Millisecond); err != nil {
//		t.Fatal(err)
//	}
//	if err := compare.Wait(ctx, master, slave, compare.Replica()); err != nil {
//		t.Fatalf("%v\n%s", err, m)
//	}
//
// The operations, by the names that Options.Weights takes:
//
//	create      a new file                             write       a file anew, in place
//	append      to a file's end                        overwrite   a part inside a file
//	truncate    shorter or longer                      sparse      data behind a hole at the end
//	punch       a hole into a file                     save        a new file renamed over the old one
//	touch       an odd modification time               stealth     other content, same size and time
//	chmod       any mode                               chown       ids without names (root)
//	setxattr    user.*, as root trusted.* too          removexattr one that was set
//	acl         access or default, set or removed      symlink     to something, nothing, far away
//	resymlink   another target, by rename              mkdir       one directory
//	mkdirp      two to four in each other              rmdir       an empty one
//	unlink      anything but a directory               rmtree      a directory with up to 60 entries
//	rename      within its directory                   move        to another directory
//	replace     by rename, over something else         renamedir   a directory, same parent
//	movedir     a directory to another parent          dirover     a directory over an empty one
//	exchange    two entries of any kind at once        link        one more name
//	linkover    one more name in the place of another  unlinkone   one of several names
//	writelink   through one of several names           filetodir   a directory where a file was
//	dirtofile   a file where a directory was           fifo, socket, device (root)
//	mknod       an empty file that nobody opens        noreplace   a rename that must not replace
//	whiteout    a rename that leaves one behind        whiteoutover the same over another name (both root)
//	exchangedirs two directories at once               exchangefiledir one directory, and what is none
//	movespecial a special file or symlink, or a swap
//
// New names come from a small set, so that names come back with other things under them; one in eight is odd.
package mutate
