// Package wire is a client of the SSH file transfer protocol, version 3, over one byte stream: one method a request,
// each safe to call from any number of goroutines, with as many requests in flight as there are callers. The protocol
// is that of draft-ietf-secsh-filexfer-02, with the extensions that OpenSSH describes in its PROTOCOL file.
//
// It owns the stream and the handles' number: it never opens more than the server said it lets, a caller waits
// instead. It follows no policy of its own: no retries, no fallbacks, no paths that it makes up. A directory is read
// in the pieces in which it comes, all attributes go in one request, and a close need not be waited for: that is why
// this is no use of a library, which lists a directory as a whole, sets one attribute a round trip, and creates files
// with a mode of its own.
//
// client.go has the session: a caller's request is queued by start, written by the goroutine send together with all
// that is queued then, and answered by the goroutine receive, which finds the caller by the request's number.
// calls.go has the requests, last.go those that go out together and take one round trip, attrs.go and errors.go what
// answers hold.
//
// Paths and names are bytes. Errors of the server are *StatusError, which errors.Is knows by its errno.
package wire
