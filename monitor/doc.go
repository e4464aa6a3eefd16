// Package monitor keeps one session going: it supervises the session's worker process, restarts it with back-off,
// tells trouble that passes from trouble that needs the operator, and writes the session's status file. It makes sure
// that the volume's marker process runs as long as one session needs it. The other half, for the command line, starts
// a monitor in the background, waits for its verdict, and stops it.
//
// It owns the session's pid file, status file and log while it runs, and every process that it starts: after Run has
// returned none of them is alive, but for the marker where other sessions use it.
//
// What to do next is decided by machine (machine.go for the processes, state.go for the state that is shown), which
// is pure: events and times in, actions out. Everything else only carries events and actions to and fro: run.go has
// the loop, worker.go a worker process and its pipes, marker.go the keeper of the shared marker, log.go the session's
// log, backoff.go the pauses between tries. control.go is the command line's half, and runs in other processes: it
// knows a monitor by its pid file and status file alone, and speaks to it by signals.
//
// The way of a report: worker -> pipe -> worker.readReports -> runner.events -> machine.handle -> the status file.
// The way of an operator's word: saved session -> SIGUSR1 -> runner.reload -> machine.handle -> a command to the
// worker.
//
// It never looks at the volume or the slave itself; what it says about them is what the worker reported.
package monitor
