package web

import (
	"bytes"
	"os"
	"strconv"
)

// memory is how much the processes of a session have, by what they are.
func (s *Session) memory() map[string]int64 {
	out := map[string]int64{}
	for name, pid := range map[string]int{"monitor": s.Status.MonitorPid, "worker": s.Status.WorkerPid} {
		if n, ok := resident(pid); ok {
			out[name] = n
		}
	}
	return out
}

// resident is how much memory a process has.
func resident(pid int) (bytesHeld int64, ok bool) {
	if pid <= 0 {
		return 0, false
	}
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0, false
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return 0, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	return pages * int64(os.Getpagesize()), err == nil
}
