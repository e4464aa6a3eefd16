package confine

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// forbidden are the system calls that no process of georep makes once it serves: those that run programs, look into other
// processes, change what is mounted or which namespace that is in, reach the network or other processes, become another
// user, or change the host; and io_uring, whose requests no filter sees. Not all exist on all processors.
func forbidden() []string {
	return []string{
		"execve", "execveat", "fork", "vfork",
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_getfd", "kcmp",
		"mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr",
		"pivot_root", "chroot", "setns", "unshare",
		"socket", "socketpair", "connect", "bind", "listen",
		"io_uring_setup", "io_uring_enter", "io_uring_register",
		"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
		"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "bpf", "perf_event_open",
		"keyctl", "add_key", "request_key", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog",
		"sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm",
		"modify_ldt", "userfaultfd", "personality", "vhangup", "lookup_dcookie", "fanotify_init", "open_by_handle_at",
	}
}

// forbid has those calls but the needed ones fail with EPERM, on all threads, and so all calls in the ways of other
// processors (32 bits), whose numbers mean something else.
func forbid(needed []string) error {
	program, err := filter(needed)
	if err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("load the filter: %w", errno)
	}
	return nil
}

// filter makes the program. See seccomp(2) for what it is given.
func filter(needed []string) ([]unix.SockFilter, error) {
	here, err := arch.GetInfo("")
	if err != nil {
		return nil, fmt.Errorf("the calls of this processor are not known: %w", err)
	}
	names := slices.DeleteFunc(forbidden(), func(name string) bool {
		_, known := here.SyscallNames[name]
		return !known || slices.Contains(needed, name)
	})
	policy := seccomp.Policy{DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{{Action: seccomp.ActionErrno, Names: names}}}
	rest, err := policy.Assemble()
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	const archOffset = 4 // of struct seccomp_data
	raw, err := bpf.Assemble(append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(here.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
	}, rest...))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	program := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return program, nil
}
