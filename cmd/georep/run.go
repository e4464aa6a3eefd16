package main

import (
	"context"
	"io"
	"os/exec"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/service"
	"georep/volume"
)

func (e *env) runCommand() *cli.Command {
	return &cli.Command{Name: "run", Usage: "run every session that was started, as a service does, until it is told to end",
		Flags: []cli.Flag{configFlag()}, Action: e.run}
}

// run is the service: systemd's unit calls it. While it runs, start and stop act through it.
func (e *env) run(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	keepSmall()
	s, err := store(c)
	if err != nil {
		return err
	}
	var out io.Writer = e.logWriter(globals(c).String("log-format"))
	journal := service.JournalTaken()
	if journal {
		out = service.NewJournal("")
	}
	log := zerolog.New(out).Level(levelOr(globals(c).String("log-level"), "info")).With().Timestamp().Str("from", "service").Logger()
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn().Err(err).Msg("the watchdog's interval cannot be read")
	}
	words := []string{"monitor"}
	if journal {
		words = append(words, "--journal")
	}
	// It says what is wrong before anything is started.
	if _, err := self(c, words...); err != nil {
		return err
	}
	beside := make(chan struct{})
	ctx, cancel := context.WithCancel(c.Context)
	go func() { serveWeb(ctx, s, c.String("config"), log); close(beside) }()
	defer func() { cancel(); <-beside }()
	return service.Run(c.Context, service.Options{Store: s, Log: log, Watchdog: watchdog,
		Monitor: func(session volume.Session) *exec.Cmd {
			cmd, err := self(c, append(words[:len(words):len(words)], session.Master, session.Slave.String())...)
			if err != nil {
				return &exec.Cmd{Err: err}
			}
			return cmd
		},
		Notify: func(state string) {
			if _, err := daemon.SdNotify(false, state); err != nil {
				log.Warn().Err(err).Msg("systemd cannot be told how the service stands")
			}
		}})
}
