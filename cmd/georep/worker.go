package main

import (
	"os"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/worker"
	"georep/monitor/report"
	"georep/status"
)

func (e *env) workerCommand() *cli.Command {
	return &cli.Command{Name: "worker", Hidden: true, Usage: "replicate one session, under its monitor",
		ArgsUsage: "MASTER SLAVE", Action: e.worker}
}

// worker replicates until its monitor tells it to end or is gone. Reports go to descriptor 3, the log as JSON to
// standard error, from where the monitor takes it; the last error there becomes the session's reason.
func (e *env) worker(c *cli.Context) error {
	carry()
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	o, err := s.Options()
	if err != nil {
		return err
	}
	v, err := t.store.Volume(s.Master)
	if err != nil {
		return err
	}
	fd, err := report.Inherited()
	if err != nil {
		return err
	}
	defer fd.Close()
	log := zerolog.New(status.JSONWriter{W: e.err}).Level(levelOr(o.LogLevel, "info")).With().Timestamp().Str("from", "worker").Logger()
	cfg := worker.Config{Store: t.store, Session: s, Volume: v, Version: version(), Logger: log}
	if err := worker.Run(c.Context, cfg, os.Stdin, report.NewWriter(fd)); err != nil {
		log.Error().Err(err).Msg("the worker ends")
		return errTold
	}
	return nil
}
