package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/logs"
	"georep/status"
	"georep/volume"
)

func (e *env) logsCommand() *cli.Command {
	return &cli.Command{Name: "logs", Usage: "show a session's log, wherever that is", ArgsUsage: "MASTER [SLAVE]", Action: e.logs,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with new lines until Ctrl-C"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 20, Usage: "begin with the last `N` lines"},
			&cli.BoolFlag{Name: "json", Usage: "print the lines as they are, in JSON"}}}
}

// logs shows the journal, where the session's monitor writes to it, or else its file.
func (e *env) logs(c *cli.Context) error {
	n := c.Int("lines")
	if n < 0 {
		return usagef("--lines cannot be less than 0")
	}
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	files := r.store.Files(r.session.Master, r.session.Slave)
	if program, err := exec.LookPath("journalctl"); err == nil && !c.Bool("json") && inJournal(files) {
		return e.journal(c, program, r.session)
	}
	show := e.logLine(c.Bool("json"))
	if err := logs.Show(c.Context, files.Log, n, c.Bool("follow"), show); err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	return nil
}

// inJournal tells whether the session's monitor logs to the systemd journal: that is said on its command line.
func inJournal(files volume.Files) bool {
	pid, running := status.Running(files.Pid)
	if !running || pid <= 0 {
		return false
	}
	line, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.Contains(line, []byte("\x00--journal\x00"))
}

// journal has journalctl show a session's lines.
func (e *env) journal(c *cli.Context, program string, s volume.Session) error {
	args := []string{"--no-pager", "--lines", strconv.Itoa(c.Int("lines")), "SESSION=" + s.Master + " " + s.Slave.String()}
	if c.Bool("follow") {
		args = append(args, "--follow")
	}
	cmd := exec.CommandContext(c.Context, program, args...)
	cmd.Stdout, cmd.Stderr = e.out, e.err
	if err := cmd.Run(); err != nil && c.Context.Err() == nil {
		return fmt.Errorf("journalctl: %w", err)
	}
	return nil
}

// logLine prints a line of the log, for people or as it is.
func (e *env) logLine(raw bool) func([]byte) error {
	if raw {
		out := status.JSONWriter{W: e.out}
		return func(b []byte) error {
			if !json.Valid(b) {
				b = []byte(status.Printable(string(b)))
			}
			_, err := out.Write(append(b[:len(b):len(b)], '\n'))
			return err
		}
	}
	pretty := zerolog.ConsoleWriter{Out: e.out, NoColor: !colours(e.out), TimeFormat: time.DateTime, TimeLocation: time.Local,
		FormatMessage: func(v any) string { return status.Printable(fmt.Sprint(v)) }}
	return func(b []byte) error {
		if json.Valid(b) {
			if _, err := pretty.Write(b); err == nil {
				return nil
			}
		}
		_, err := fmt.Fprintln(e.out, status.Printable(string(b)))
		return err
	}
}
