// Package filter decides which entries of a master a session leaves out: by patterns under gitignore's rules, by size, and by
// CACHEDIR.TAG. It does no I/O but for Load, which reads the file of patterns that the operator named.
//
// Rules are tried from the last to the first, and the first that matches decides: so a later line wins. The order is that of the
// file (exclude-from), the exclude lines, the include lines; an include line is an exclude line with a ! before it. As in
// gitignore, nothing in a directory that is left out can be taken in again.
//
// A matcher is made for one directory from that of the directory above it (Dir.Down), so that a name costs no more at depth
// than at the root. Only patterns with a slash that can still match below are kept: two directories of which that is the same
// (Dir.Same) leave out the same of what lies in them, whatever their paths are.
//
// A Filter and a Dir never change, and may be used from any goroutine. A nil *Filter or *Dir leaves out nothing.
package filter
