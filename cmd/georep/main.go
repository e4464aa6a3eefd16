// Command georep replicates directory trees over SSH. This package is the command line alone: each file turns the
// flags and arguments of one command into options and makes one call. It owns the exit codes and what is printed, and
// it is the only place that ends the process. It decides nothing about replication.
//
// The way of a command line: main -> reorder (argv.go: flags may stand anywhere) -> the table of commands (app.go) ->
// the Action of one command, in the file of its name -> an error, which exitCode turns into one line and a code.
// session.go has what the commands on sessions share: the arguments MASTER and SLAVE, and a session that is
// registered, and forgotten again when the command fails.
//
// The hidden commands are the processes of a running session, all of this one program: start runs monitor, monitor
// runs worker and marker, and sshd on the slave's host runs agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"georep/status"
)

// The exit codes.
const (
	// Scripts and systemd units decide on these: they never change their meaning.
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	// 128 + SIGINT, as shells have it; SIGTERM gives the same.
	exitInterrupted = 130
	// Beside these status --check has the codes of monitoring plug-ins: 0 to 3.
)

// errUsage marks errors of the command line itself.
var errUsage = errors.New("wrong usage")

// errTold ends a command that has already said what is wrong, where its monitor listens.
var errTold = errors.New("told already")

// memoryLimit is what the Go runtime has each process keep to, by collecting garbage more often, unless GOMEMLIMIT says
// otherwise. What is live is less by far; a process with its code stays below the 96 MiB of the design.
const memoryLimit = 72 << 20

// monitorGarbage is GOGC for the monitor, unless the environment says otherwise. Little of its memory is live, and with
// Go's 100 nothing is collected before the heap has 4 MiB: until then the process grows with the load, as if it leaked.
// With 25 the heap is collected at 1 MiB.
const monitorGarbage = 25

// carrierGarbage is GOGC for the processes that carry files: the worker and the agent. What they make for a file is garbage a moment
// later, and little else is live: with Go's 100 they collect it at every 4 MiB, which is a fifteenth of the processor time of a first
// sync. With 400 they do at 16 MiB, and more often where the memory limit comes near.
const carrierGarbage = 400

// carry has this process collect its garbage as one that carries files does.
func carry() { collectAt(carrierGarbage) }

// keepSmall has this process collect its garbage as a monitor does.
func keepSmall() { collectAt(monitorGarbage) }

// collectAt sets GOGC, unless the environment has.
func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// The first SIGINT or SIGTERM ends the context, and every command returns soon after.
func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	code := run(ctx, os.Args, os.Stdout, os.Stderr)
	cancel()
	os.Exit(code)
}

// run is the whole program but for the end of the process.
func run(ctx context.Context, argv []string, stdout, stderr io.Writer) int {
	// urfave/cli prints and exits by itself where it is let: newApp takes both away from it, so that all errors come
	// here.
	cli.HelpPrinter = printHelp
	e := &env{out: stdout, err: stderr}
	app := newApp(e)
	if complete(app, argv, stdout) {
		return exitDone
	}
	args, err := reorder(app, argv)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	if errors.Is(err, errUsage) && slices.Contains(argv, "--check") {
		err = e.unknown(err)
	}
	return exitCode(ctx, err, stderr)
}

// exitCode says in one line what went wrong.
func exitCode(ctx context.Context, err error, stderr io.Writer) int {
	var own *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &own):
		return own.code
	case errors.Is(err, errTold):
		return exitFailed
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "georep: %s (see georep --help)\n", line(err))
		return exitUsage
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(stderr, "georep: interrupted")
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "georep: %s\n", line(err))
	return exitFailed
}

// line makes an error one line that a terminal can be trusted with.
func line(err error) string {
	return status.Printable(status.OneLine(strings.TrimSuffix(err.Error(), "\n")))
}

// usageError is an error of the command line: it reads as its text alone and is errUsage.
type usageError struct{ cause error }

func (e *usageError) Error() string   { return e.cause.Error() }
func (e *usageError) Unwrap() []error { return []error{errUsage, e.cause} }

// asUsage makes err one of the command line; nil stays nil.
func asUsage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{cause: err}
}

// usagef makes an error of the command line; the exit code is 2 and the help is pointed at.
func usagef(format string, args ...any) error { return asUsage(fmt.Errorf(format, args...)) }
