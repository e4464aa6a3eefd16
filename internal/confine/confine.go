// Package confine takes from this process what it does not need any more: once an agent knows its slave, or a marker its
// volume, whoever takes the process over gets nothing beyond that. Nothing of it can be undone. Process changes the whole
// process, all its threads, and is called once, before anything is started that it would harm.
//
// An older kernel, or one that was built without, gives less. What holds is told, and what is missing is no error: the
// process is no worse off than it was.
package confine

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// What a Report names.
const (
	NoNewPrivs   = "no_new_privs"
	Capabilities = "capabilities"
	Landlock     = "landlock"
	Seccomp      = "seccomp"
)

// Report tells what confines this process.
type Report struct {
	Holds []string // of the constants above, in their order
	// Lacks has a line for each that does not hold, and why.
	Lacks []string
}

// String is for people: what holds, and what does not.
func (r Report) String() string {
	s := strings.Join(r.Holds, ", ")
	if s == "" {
		s = "nothing"
	}
	if len(r.Lacks) > 0 {
		s += " (not " + strings.Join(r.Lacks, ", not ") + ")"
	}
	return s
}

func (r *Report) add(what string, err error) {
	if err == nil {
		r.Holds = append(r.Holds, what)
		return
	}
	r.Lacks = append(r.Lacks, what+": "+err.Error())
}

// Needs is what a process goes on to need.
type Needs struct {
	// Write are directories below which it may do everything, Read those in which it may look.
	Write, Read []string
	// Caps are the capabilities that it keeps, of those that it has.
	Caps []cap.Value
	// Calls are system calls that it makes, of those that Process takes away: see forbidden.
	Calls []string
	// AnyPath lets it open what its user may open: Landlock is left out.
	AnyPath bool
}

// Process confines this process to what it needs.
func Process(n Needs) (r Report) {
	// The local time zone is read from its file when a time is first shown, as in a log: that has to be before.
	_, _ = time.Now().Zone()
	// In this order: what comes later takes away what the earlier ones need.
	r.add(NoNewPrivs, noNewPrivs())
	r.add(Capabilities, keep(n.Caps))
	// The filter keeps no call back that Landlock is set up by.
	filtered := forbid(n.Calls)
	if !n.AnyPath {
		r.add(Landlock, paths(n, filtered == nil && !slices.Contains(n.Calls, "ioctl")))
	}
	r.add(Seccomp, filtered)
	return r
}

// noNewPrivs has no program that is run give more rights, and is what the others stand on.
func noNewPrivs() error {
	if _, err := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl: %w", err)
	}
	return nil
}

// keep drops all capabilities but those.
func keep(values []cap.Value) error {
	have, err := cap.GetPID(0) // GetProc would panic
	if err != nil {
		return fmt.Errorf("read this process's capabilities: %w", err)
	}
	kept := cap.NewSet()
	for _, v := range values {
		for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
			on, err := have.GetFlag(flag, v)
			if err == nil && on {
				err = kept.SetFlag(flag, true, v)
			}
			if err != nil && !errors.Is(err, cap.ErrBadValue) { // this kernel does not know it
				return fmt.Errorf("look at %v: %w", v, err)
			}
		}
	}
	if err := kept.SetProc(); err != nil {
		return fmt.Errorf("set %v: %w", kept, err)
	}
	return nil
}

// paths leaves this process the files below the directories of its needs, and those of /proc; and no network, and no signals
// or sockets to other processes, as far as the kernel can tell them apart (ABI 4, 6).
//
// Where no ioctl can be made, Landlock allows it on devices in the directories that may be written. That gives nothing, and
// spares much: at each rename between directories the kernel goes up from both of them until it has found all that Landlock
// handles to be allowed. With one access that no directory allows it goes up to the root of the mount, each time.
func paths(n Needs, noIoctl bool) error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return fmt.Errorf("this kernel has none, or it is off: %w", errno)
	}
	if abi < 2 {
		return errors.New("this kernel's would keep files from being moved between directories (Linux 5.19 is needed)")
	}
	writable := landlock.RWDirs(append(n.Write, reports()...)...).WithRefer().IgnoreIfMissing()
	if noIoctl {
		writable = writable.WithIoctlDev()
	}
	rules := []landlock.Rule{landlock.RODirs("/proc"), landlock.RODirs(n.Read...).IgnoreIfMissing(), writable}
	if err := landlock.V7.BestEffort().Restrict(rules...); err != nil {
		return fmt.Errorf("restrict: %w", err)
	}
	return nil
}
