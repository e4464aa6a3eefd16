package sshserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

const (
	// killGrace is how long what a command left behind may hold its output open after it was ended.
	killGrace = 5 * time.Second

	// exitNotStarted is what shells give for a command that they found and could not run.
	exitNotStarted = 126
	exitSignalBase = 128 // as shells do
)

// Shell is a Handler that runs commands with sh -c as the current user, with the environment of this process. The
// command's whole process group is killed when the channel ends.
func Shell(ctx context.Context, command string, streams Streams) int {
	return ShellEnv(nil)(ctx, command, streams)
}

// ShellEnv is Shell with another environment, "NAME=value" each; nil means that of this process.
func ShellEnv(env []string) Handler {
	return func(ctx context.Context, command string, streams Streams) int {
		cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
		cmd.Env = env
		cmd.Stdout, cmd.Stderr = streams.Stdout, streams.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = killGrace
		// Waiting for the command must not wait for its input, which the client may never end.
		stdin, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			fmt.Fprintf(streams.Stderr, "run a shell: %v\n", err)
			return exitNotStarted
		}
		streams.Go(func() {
			defer stdin.Close()
			_, _ = io.Copy(stdin, streams.Stdin)
		})
		err = cmd.Wait()
		// What it left in the background goes with it; there may be nothing.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		return exitCode(err)
	}
}

// exitCode is what a shell would say of the end of a process. A process that ended well while others held its output
// open ended well.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return 0
	case !errors.As(err, &exit):
		return exitNotStarted
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return exitSignalBase + int(status.Signal())
	}
	return exit.ExitCode()
}
