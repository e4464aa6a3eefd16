package marker

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
)

// verdict is what to do about a mark that failed.
type verdict int

const (
	done    verdict = iota
	gone            // the entry vanished: whatever removed it marks the directory
	refused         // it will not succeed however often it is tried
	again           // it has to be tried again
)

// judge decides about a failed mark. hadXtime tells whether the entry carries an xtime already.
func judge(err error, hadXtime func() bool) verdict {
	switch {
	case err == nil:
		return done
	case isAny(err, unix.ENOENT, unix.ESTALE, unix.ENOTDIR):
		return gone
	case errors.Is(err, unix.ENOSPC):
		// With an xtime there, room for one exists; an old one left there would hide the entry from every crawl.
		if hadXtime() {
			return again
		}
		return refused
	case isAny(err, unix.EPERM, unix.EACCES, unix.EOPNOTSUPP, unix.EROFS, unix.E2BIG, unix.ERANGE, unix.EINVAL, unix.ELOOP,
		unix.EXDEV):
		return refused
	}
	return again
}

func isAny(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// sampleSize is how many refusals are named.
const sampleSize = 16

// refusals counts marks that were refused for good, and names the latest few. The crawler has to judge these entries by
// their ctime; the directories above them are marked as ever.
type refusals struct {
	mu     sync.Mutex
	count  int64
	sample []string
}

func (r *refusals) add(d *beneath.Dir, name string, err error) {
	// The path is for people only, so the kernel's view of it is good enough.
	path, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
	var errno unix.Errno
	if errors.As(err, &errno) {
		err = errno
	}
	line := fmt.Sprintf("%q: %v", beneath.Join(path, name), err)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	for _, have := range r.sample {
		if have == line {
			return
		}
	}
	if len(r.sample) == sampleSize {
		r.sample = r.sample[1:]
	}
	r.sample = append(r.sample, line)
}

func (r *refusals) fill(s *Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Unmarked, s.UnmarkedSample = r.count, append([]string(nil), r.sample...)
}
