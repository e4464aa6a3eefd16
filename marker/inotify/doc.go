// Package inotify tells what changes in one directory tree, as an ordinary user can learn it: by one kernel watch a
// directory. It owns the descriptor of the event queue, the watches, and the knowledge of where in the tree each watched
// directory lies now. It knows nothing of volumes and xtimes, and changes nothing itself.
//
// How it keeps its promise, that every change below the root becomes an Event:
//
//   - A directory is watched first and listed then; what a listing finds that may have changed before the watch stood is
//     reported like an event (adopt.go).
//   - What an event says of directories that came, went or moved is only a place to look at: which directory is there now
//     is told by the watch that the kernel has for it (nodes.go). So events may be old, and names may have been used
//     again since; the last event about a place finds the truth.
//   - Directories are opened beneath the root, by descriptors, and watched through these. No path that somebody redirects
//     leads a watch elsewhere, and paths may be longer than PATH_MAX.
//   - Where events were lost, all the tree is walked again, and a scan is asked for (Lost).
//   - A mark is a change too, and inotify does not tell whose. Quietly makes one so that exactly its own events are
//     dropped (quiet.go).
//   - A file with several names may change through one that is gone when its event is read. Then a scan is asked for
//     (missed.go).
//
// A directory costs this process some 180 bytes and its name, and the kernel some 110, beside the inode, about 1 KiB,
// which stays in memory (BenchmarkMemory, with 100,000 directories). The number of watches has a limit, for each user;
// when it is reached the error says so, and what would raise it (limits.go).
package inotify
