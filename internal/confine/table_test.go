package confine

import (
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
)

// allowed are the calls that stay, by what they are for. What is on neither side was not looked at.
var allowed = strings.Fields(`
	read write open close stat fstat lstat poll lseek mmap mprotect munmap brk pread64 pwrite64 readv writev access pipe select
	mremap msync mincore madvise dup dup2 dup3 pipe2 sendfile fcntl flock fsync fdatasync truncate ftruncate getdents getdents64
	getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask utime utimes
	mknod statfs fstatfs sync readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
	removexattr lremovexattr fremovexattr fadvise64 openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat
	symlinkat readlinkat fchmodat faccessat pselect6 ppoll splice sync_file_range utimensat fallocate preadv pwritev
	name_to_handle_at syncfs renameat2 copy_file_range preadv2 pwritev2 statx openat2 faccessat2 fchmodat2 cachestat statmount
	listmount setxattrat getxattrat listxattrat removexattrat close_range
	rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause tkill tgkill
	signalfd signalfd4 eventfd eventfd2 epoll_create epoll_create1 epoll_wait epoll_ctl epoll_pwait epoll_pwait2
	sched_yield nanosleep getitimer alarm setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
	timerfd_create timerfd_settime timerfd_gettime clock_gettime clock_getres clock_nanosleep gettimeofday time times
	clone clone3 exit exit_group wait4 waitid futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list
	get_robust_list set_tid_address restart_syscall rseq membarrier set_thread_area get_thread_area arch_prctl prctl getcpu
	mlock munlock mlockall munlockall mlock2 mbind set_mempolicy get_mempolicy set_mempolicy_home_node pkey_mprotect pkey_alloc
	pkey_free map_shadow_stack mseal
	getpid gettid getppid getpgrp getpgid setpgid getsid setsid getuid getgid geteuid getegid getgroups getresuid getresgid capget
	capset getrlimit setrlimit prlimit64 getrusage sysinfo uname getrandom getpriority setpriority ioprio_set ioprio_get
	sched_getparam sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min sched_rr_get_interval
	sched_getaffinity
	accept accept4 sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockname getpeername setsockopt getsockopt
	seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self lsm_get_self_attr lsm_list_modules
	timerfd_settime64 timerfd_gettime64 timer_settime64 timer_gettime64 sched_rr_get_interval_time64 rt_sigtimedwait_time64
	pselect6_time64 ppoll_time64 clock_getres_time64 clock_gettime64 clock_nanosleep_time64 futex_time64 utimensat_time64
	recvmmsg_time64 fstatat
	shmdt inotify_add_watch inotify_rm_watch fanotify_mark`)

// TestEveryCallIsDecided: when the table learns of new calls, somebody has to say on which side they are. A name that is misspelt
// would forbid nothing.
func TestEveryCallIsDecided(t *testing.T) {
	known := map[string]bool{}
	for _, a := range []*arch.Info{arch.X86_64, arch.AARCH64} {
		for name := range a.SyscallNames {
			known[name] = true
			if slices.Contains(allowed, name) == slices.Contains(forbidden(), name) {
				t.Errorf("%s on %s is on no side, or on both", name, a.Name)
			}
		}
	}
	for _, a := range []*arch.Info{arch.ARM, arch.I386} {
		for name := range a.SyscallNames {
			known[name] = true
		}
	}
	for _, name := range slices.Concat(forbidden(), allowed) {
		if !known[name] {
			t.Errorf("no processor has %s", name)
		}
	}
}
