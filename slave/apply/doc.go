// Package apply decides what operations mean, for slaves of every kind: from an operation, what stands at its path, and what
// the slave has of its inode follows what is to be done. A slave looks, asks here, and then acts in its own way; so no kind of
// slave has an opinion of its own.
//
// It keeps invariant 6 (Holds): a failure holds back the stamps above it in the same pass, and no others.
//
// It does no I/O, has no locks, and owns nothing but a Holds, which belongs to whoever uses it.
package apply
