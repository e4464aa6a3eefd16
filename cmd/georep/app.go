package main

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"georep/status"
	"georep/volume"
)

// defaultStateDir is where the registry is when nobody says otherwise.
const defaultStateDir = "/var/lib/georep"

// env is what every command prints to.
type env struct {
	// Standard output is for what was asked for, standard error for all else.
	out, err io.Writer
	window   string // that a sync was said to wait for
}

// newApp is the table of commands.
func newApp(e *env) *cli.App {
	return &cli.App{
		Name: "georep", Usage: "keep a live copy of a directory tree somewhere else, over SSH", HideHelpCommand: true,
		Version: fullVersion(), Writer: e.out, ErrWriter: e.err,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "state-dir", EnvVars: []string{"GEOREP_STATE_DIR"}, Value: defaultStateDir,
				Usage: "where volumes and sessions are registered"},
			&cli.StringFlag{Name: "log-level", Usage: "least level that is logged: trace, debug, info, warn or error"},
			&cli.StringFlag{Name: "log-format", Usage: "console or json (default: console on a terminal)"},
		},
		Before:         checkGlobals,
		Action:         func(*cli.Context) error { return usagef("no command given") },
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return asUsage(err) },
		Commands: leaves(
			e.volumeCommand(), e.createCommand(), e.startCommand(), e.stopCommand(), e.restartCommand(), e.pauseCommand(), e.resumeCommand(),
			e.syncCommand(), e.approveCommand(), e.verifyCommand(), e.restoreCommand(), e.statusCommand(), e.checkpointCommand(), e.waitCommand(), e.logsCommand(), e.configCommand(), e.deleteCommand(),
			e.applyCommand(), e.configcheckCommand(), e.demoCommand(), e.runCommand(), e.webCommand(), slaveServer{e}.serveCommand(),
			failover{e}.promoteCommand(), failover{e}.demoteCommand(), failover{e}.divergenceCommand(), e.authorizeCommand(), e.doctorCommand(), e.generateCommand(), e.agentCommand(), e.agentHookCommand(), e.markerCommand(), e.workerCommand(), e.monitorCommand(),
		),
	}
}

// leaves gives each command what all share.
func leaves(commands ...*cli.Command) []*cli.Command {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = func(_ *cli.Context, err error, _ bool) error { return asUsage(err) }
		leaves(c.Subcommands...)
	}
	return commands
}

// checkGlobals refuses bad values of the global flags before any command runs.
func checkGlobals(c *cli.Context) error {
	if _, err := zerolog.ParseLevel(c.String("log-level")); err != nil {
		return usagef("--log-level cannot be %q: it is trace, debug, info, warn or error", c.String("log-level"))
	}
	switch f := c.String("log-format"); f {
	case "", "console", "json":
	default:
		return usagef("--log-format cannot be %q: it is console or json", f)
	}
	if c.String("state-dir") == "" {
		return usagef("--state-dir is empty")
	}
	return nil
}

// version names this build. The agent and the worker tell it each other.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// fullVersion is the version for people: with the commit, and its date, that the program was built of.
func fullVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version()
	}
	of := map[string]string{}
	for _, s := range info.Settings {
		of[s.Key] = s.Value
	}
	if of["vcs.revision"] == "" {
		return version() + " (" + info.GoVersion + ")"
	}
	text := fmt.Sprintf("%s (commit %.12s of %.10s", version(), of["vcs.revision"], of["vcs.time"])
	if of["vcs.modified"] == "true" {
		text += ", changed since"
	}
	return text + ", " + info.GoVersion + ")"
}

// store opens the registry that --state-dir names.
func store(c *cli.Context) (*volume.Store, error) {
	return volume.OpenStore(globals(c).String("state-dir"))
}

// globals is the context that holds the global flags: a session's own --log-level hides the global one.
func globals(c *cli.Context) *cli.Context {
	root := c
	for _, l := range c.Lineage() {
		if l.App != nil {
			root = l
		}
	}
	return root
}

// logger logs for a command that a person runs: warnings, on standard error.
func (e *env) logger(c *cli.Context) zerolog.Logger {
	g := globals(c)
	return zerolog.New(e.logWriter(g.String("log-format"))).Level(levelOr(g.String("log-level"), "warn")).
		With().Timestamp().Logger()
}

// levelOr parses a level that was checked before; an empty one is the other.
func levelOr(level, other string) zerolog.Level {
	if level == "" {
		level = other
	}
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.InfoLevel
	}
	return l
}

// logWriter is standard error in the format that was asked for: JSON by itself where no terminal is.
func (e *env) logWriter(format string) io.Writer {
	if format == "json" || format == "" && !terminal(e.err) {
		return status.JSONWriter{W: e.err}
	}
	return zerolog.ConsoleWriter{Out: e.err, NoColor: !colours(e.err)}
}

// terminal tells whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colours tells whether a writer is a terminal whose user wants colours (no-color.org).
func colours(w io.Writer) bool {
	return terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}
