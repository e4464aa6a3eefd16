// Package scan finds what changed in a tree while no event told, by the times of its entries, and has it marked. It knows of its marker
// only what Marker asks for. It never changes anything itself.
//
//	scan.go     one pass over the tree; State is what passes share and leave to the next
//	moving.go   directories that move while a pass goes on
//	uncover.go  what the end of a mount has uncovered
//	own.go      which ctimes our own marks made
//	times.go    the times that were noted, where ctimes follow other clocks
//	seek.go     inodes whose names nobody knows
//
// Each part has a lock of its own, held for moments and never two at a time. Times holds its lock while it reads and writes its file.
package scan
