package confine

import (
	"encoding/binary"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// forbidden are the system calls that no process of georep makes once it serves: those that run programs, look into other
// processes or change how they run, change what is mounted or which namespace that is in, reach the network or other
// processes, in the ways of System V too, become another user, tell what happens to other files, have a driver do anything
// (ioctl), or change the host; io_uring, whose requests no filter sees; and what is only attacked. Not all exist on all processors.
//
// It is a list of what is denied, since what is needed is the Go runtime's and the C library's to say: a list of that would
// end a process after an update of them. But no call is on neither side without having been looked at: the tests have the
// other side, and what this program has never heard of is denied as if the kernel had not either (unheard).
func forbidden() []string {
	return []string{
		"execve", "execveat", "fork", "vfork", "uselib", "memfd_create", "memfd_secret",
		"ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease", "pidfd_open", "pidfd_getfd",
		"pidfd_send_signal", "kill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "kcmp", "migrate_pages", "move_pages",
		"sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity",
		"mount", "umount", "umount2", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsmount", "fsconfig", "fspick",
		"mount_setattr", "pivot_root", "chroot", "setns", "unshare",
		"socket", "socketpair", "connect", "bind", "listen", "socketcall",
		"shmget", "shmat", "shmctl", "semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl", "ipc",
		"mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
		"io_uring_setup", "io_uring_enter", "io_uring_register",
		"io_setup", "io_destroy", "io_submit", "io_cancel", "io_getevents", "io_pgetevents",
		"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "setfsuid", "setfsgid",
		"kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "bpf", "perf_event_open",
		"keyctl", "add_key", "request_key", "reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "syslog",
		"sethostname", "setdomainname", "settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm", "ioctl",
		"modify_ldt", "userfaultfd", "personality", "vhangup", "lookup_dcookie", "lsm_set_self_attr", "remap_file_pages",
		"fanotify_init", "inotify_init", "inotify_init1", "open_by_handle_at",
		// The same with times of 64 bits, on processors of 32.
		"semtimedop_time64", "mq_timedsend_time64", "mq_timedreceive_time64", "io_pgetevents_time64", "clock_settime64",
		"clock_adjtime64",
		// What is there for old programs only, or for attackers.
		"sysfs", "ustat", "_sysctl", "create_module", "get_kernel_syms", "query_module", "nfsservctl", "getpmsg", "putpmsg",
		"afs_syscall", "tuxcall", "security", "vserver", "uretprobe", "arch_specific_syscall", "epoll_ctl_old", "epoll_wait_old", "vmsplice", "tee",
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
	raw, err := bpf.Assemble(slices.Concat(ownProcessor(here), unheard(here), threadsOnly(here), rest))
	if err != nil {
		return nil, fmt.Errorf("assemble the filter: %w", err)
	}
	program := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		program = append(program, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return program, nil
}

// Where struct seccomp_data has what a filter looks at. The last is the lower half of the first argument.
const (
	numberOffset = 0
	archOffset   = 4
)

func firstArgument() uint32 {
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 {
		return 20
	}
	return 16
}

func deny(errno unix.Errno) bpf.RetConstant {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

// ownProcessor denies what comes in the ways of another processor.
func ownProcessor(here *arch.Info) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(here.ID), SkipTrue: 1},
		deny(unix.EPERM),
	}
}

// unheard denies calls that are newer than this program's table, as a kernel does that has none of them: whoever makes one can
// do without. Numbers are given in order.
func unheard(here *arch.Info) []bpf.Instruction {
	last := slices.Max(slices.Collect(maps.Keys(here.SyscallNumbers)))
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(last), SkipFalse: 1},
		deny(unix.ENOSYS),
	}
}

// threadsOnly lets clone make threads, and no processes or namespaces. A filter does not see what clone3 is asked for; a C library
// that is told that there is none makes its threads by clone.
func threadsOnly(here *arch.Info) []bpf.Instruction {
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
		unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP
	clone, clone3 := here.SyscallNames["clone"], here.SyscallNames["clone3"]
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(clone3), SkipFalse: 1},
		deny(unix.ENOSYS),
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(clone), SkipFalse: 4},
		bpf.LoadAbsolute{Off: firstArgument(), Size: 4},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: unix.CLONE_THREAD | namespaces},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.CLONE_THREAD, SkipTrue: 1},
		deny(unix.EPERM),
	}
}
