package disk

import (
	"fmt"
	"math"
	"os"
	"strings"

	"georep/internal/beneath"
	"georep/slave"
)

// readLimits learns what no file of this slave can keep. scratch is a file that is set different times; without one nothing
// is known of them.
func (s *store) readLimits(scratch *beneath.Inode) {
	s.info.Limits.Policy = s.policyLimits()
	if scratch != nil {
		s.info.Limits.Times = probeTimes(scratch)
	}
	if s.policy.FakeOwner {
		s.info.Root = true // all that root could give is kept
		return
	}
	if !s.root {
		return
	}
	uids, gids := idRanges("/proc/self/uid_map"), idRanges("/proc/self/gid_map")
	if uids == nil && gids == nil {
		return
	}
	every := []slave.IDRange{{Count: math.MaxUint32}}
	if uids == nil {
		uids = every
	}
	if gids == nil {
		gids = every
	}
	// The root of a user namespace has neither devices nor trusted xattrs, nor all owners.
	s.info.Root, s.info.Limits.UIDs, s.info.Limits.GIDs = false, uids, gids
}

// inNamespace tells whether this process runs in a user namespace that does not have all ids.
// Having all ids of a namespace that is not the first one counts as having all.
func inNamespace() bool {
	return idRanges("/proc/self/uid_map") != nil || idRanges("/proc/self/gid_map") != nil
}

// idRanges reads the ids that this process's user namespace has; nil stands for all.
func idRanges(file string) (ranges []slave.IDRange) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		var inside, outside, count uint32
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return nil
		}
		if count == math.MaxUint32 {
			return nil
		}
		ranges = append(ranges, slave.IDRange{First: inside, Count: count})
	}
	return ranges
}

// farTime is beyond what any file system has an end for, and near what the kernel's own functions still take.
const farTime = 1 << 40

// probeTimes finds the limits of the times that a file system keeps, by setting some and reading
// them back. None are known where it refuses. The file is the caller's scratch, and is left with
// one of the times. Three calls to set and three to read are made, once a session.
func probeTimes(i *beneath.Inode) (l slave.TimeLimits) {
	first, err := setTime(i, beneath.Time{Sec: -farTime})
	last, err2 := setTime(i, beneath.Time{Sec: farTime})
	fine, err3 := setTime(i, beneath.Time{Sec: 1_000_000_000, Nsec: 999_999_999})
	if err != nil || err2 != nil || err3 != nil || last.Sec <= first.Sec {
		return l
	}
	l = slave.TimeLimits{Min: first.Sec, Max: last.Sec, Step: slave.MaxStep}
	if first.Sec == -farTime {
		l.Min = math.MinInt64
	}
	if last.Sec == farTime {
		l.Max = math.MaxInt64
	}
	for l.Step > 1 && fine.Nsec/(l.Step/10) == 999_999_999/(l.Step/10) {
		l.Step /= 10
	}
	return l
}

// setTime sets a modification time, and gives what became of it.
func setTime(i *beneath.Inode, want beneath.Time) (beneath.Time, error) {
	if err := i.SetMtime(want); err != nil {
		return want, err
	}
	st, err := i.Stat()
	return st.Mtime, err
}
