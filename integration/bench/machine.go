package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine says on what the numbers were measured.
type machine struct {
	cores    int
	cpu      string
	kernel   string
	memory   uint64 // bytes
	programs []string
}

func thisMachine() machine {
	m := machine{cores: runtime.NumCPU(), cpu: "unknown processor", kernel: "unknown kernel"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.cpu = cpuModel(string(text))
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.memory = info.Totalram * uint64(info.Unit)
	}
	m.programs = append(m.programs, "georep "+versionOf("git", "describe", "--always", "--dirty"), runtime.Version())
	for _, args := range [][]string{{"rsync", "--version"}, {"ssh", "-V"}, {"lsyncd", "--version"}, {"tar", "--version"}} {
		m.programs = append(m.programs, args[0]+": "+versionOf(args[0], args[1:]...))
	}
	return m
}

// cpuModel is the name in /proc/cpuinfo; some processors have none there.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		key, value, ok := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); ok && (key == "model name" || key == "Model" || key == "cpu model") {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return runtime.GOARCH + " processor"
}

// versionOf is the first line that a program says about itself.
func versionOf(program string, args ...string) string {
	out, err := exec.Command(program, args...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	if err != nil || line == "" {
		return "unknown"
	}
	return strings.Join(strings.Fields(line), " ")
}

// String is one paragraph of Markdown.
func (m machine) String() string {
	return fmt.Sprintf("Measured on %d cores (%s), %.0f GiB of memory, %s, all trees on tmpfs. %s.", m.cores, m.cpu,
		float64(m.memory)/(1<<30), m.kernel, strings.Join(m.programs, "; "))
}
