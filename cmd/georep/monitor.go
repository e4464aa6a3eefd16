package main

import (
	"os/exec"

	"github.com/urfave/cli/v2"

	"georep/internal/service"
	"georep/monitor"
	"georep/volume"
)

func (e *env) monitorCommand() *cli.Command {
	return &cli.Command{Name: "monitor", Hidden: true, Usage: "supervise one session", ArgsUsage: "MASTER SLAVE",
		Flags: []cli.Flag{&cli.BoolFlag{Name: "journal", Usage: "log to the systemd journal, too"}}, Action: e.monitor}
}

// monitor is what start runs in the background; it takes all settings from the session's file.
func (e *env) monitor(c *cli.Context) error {
	keepSmall()
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	cfg, err := monitorConfig(c, t.store, s)
	if err != nil {
		return err
	}
	if c.Bool("journal") {
		cfg.Console = service.NewJournal(s.Master + " " + s.Slave.String())
	}
	return monitor.Run(c.Context, cfg)
}

// monitorConfig makes worker and marker this very program.
func monitorConfig(c *cli.Context, store *volume.Store, s volume.Session) (monitor.Config, error) {
	worker, err := self(c, "worker", s.Master, s.Slave.String())
	if err != nil {
		return monitor.Config{}, err
	}
	again := func(argv []string) *exec.Cmd { return exec.Command(argv[0], argv[1:]...) }
	// The words that name this program and its global flags, without "worker MASTER SLAVE".
	program := worker.Args[:len(worker.Args)-3]
	return monitor.Config{
		Store: store, Master: s.Master, Slave: s.Slave,
		WorkerCommand: func() *exec.Cmd { return again(worker.Args) },
		MarkerCommand: func() *exec.Cmd { return again(append(program[:len(program):len(program)], markerArgs(store, s)...)) },
	}, nil
}

// markerArgs has the settings of the session as they are now: the marker may be started long after the monitor.
func markerArgs(store *volume.Store, s volume.Session) []string {
	if now, err := store.Session(s.Master, s.Slave); err == nil {
		s = now
	}
	args := []string{"marker", s.Master}
	o, err := s.Options()
	if err != nil {
		return args // the monitor says what is wrong with it
	}
	return append(args, "--source", o.MarkerSource, "--scan-interval", o.ScanInterval.String(),
		"--max-delay", o.MaxDelay.String())
}
