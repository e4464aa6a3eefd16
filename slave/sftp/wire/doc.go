// Package wire is a client of the SSH file transfer protocol, version 3, over one byte stream: one method a request, each
// safe to call from any number of goroutines, with as many requests in flight as there are callers.
//
// It owns the stream and the handles' number: it never opens more than the server said it lets, a caller waits instead. It
// follows no policy of its own: no retries, no fallbacks, no paths that it makes up. A directory is read in the pieces in
// which it comes, all attributes go in one request, and a close need not be waited for: that is why this is no use of a
// library, which lists a directory as a whole, sets one attribute a round trip, and creates files with a mode of its own.
//
// Paths and names are bytes. Errors of the server are *StatusError, which errors.Is knows by its errno.
package wire
