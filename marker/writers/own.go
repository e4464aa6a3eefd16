package writers

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// This file is about processes of georep itself. There are three or more for each session, and each of them wakes up many times a
// second, so that a host of many sessions would look into all of them at each look of each volume. They write by plain
// system calls only: they have no shared mappings of files, no asynchronous writes, and no loop devices (internal/lint holds
// all that is linked into georep to that). Where plain writes raise events, a process that runs this program has nothing to
// find. A release that was installed while this process ran is another file: its processes are looked into.

// program is the file that a process runs.
type program struct{ dev, ino uint64 }

// programOf asks the kernel what a process runs now. It costs one system call.
func programOf(pid int) (program, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(pid)+"/exe", &st); err != nil {
		return program{}, err
	}
	return program{st.Dev, st.Ino}, nil
}

// owning is whether a process is one of georep's own.
type owning int

const (
	ownUnknown owning = iota // it ran something else at the last look, or was not looked at
	ownYes
	ownOfAnother // it runs this program for another user
)

// isOwn tells whether a process runs this program for this user. The program is asked for each time, since a process may
// become another one. The user is asked for once: another user can make a process of his do what georep never does, with a
// debugger, but he cannot make it this user's. A process that cannot be asked is none of georep's.
func (f *Finder) isOwn(pid int, p *process) bool {
	runs, err := programOf(pid)
	if err != nil || runs != f.program {
		p.own = ownUnknown
		return false
	}
	if p.own == ownUnknown {
		p.own = ownOfAnother
		if runsFor(pid, os.Geteuid()) {
			p.own = ownYes
		}
	}
	return p.own == ownYes
}

// runsFor tells whether a process has this user's id and no other: real, effective, saved, and that for files.
func runsFor(pid, uid int) bool {
	for line := range strings.Lines(read("/proc/" + strconv.Itoa(pid) + "/status")) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok {
			id := strconv.Itoa(uid)
			return slices.Equal(strings.Fields(ids), []string{id, id, id, id})
		}
	}
	return false
}
