package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/web"
	"georep/internal/web/listen"
	"georep/volume"
)

// webAgain is how long the service waits before it tries again to open its web server.
const webAgain = 30 * time.Second

func (e *env) webCommand() *cli.Command {
	return &cli.Command{Name: "web", Usage: "show the sessions in a browser, and to Prometheus, until Ctrl-C", Action: e.web,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: listen.Default, Usage: "`ADDRESS` to listen at: HOST:PORT or unix:/path"},
			&cli.StringFlag{Name: "token-file", Usage: "`FILE` with the token that clients must send"},
			&cli.StringFlag{Name: "tls-cert", Usage: "`FILE` with the certificate, in PEM"},
			&cli.StringFlag{Name: "tls-key", Usage: "`FILE` with its key"},
			&cli.StringFlag{Name: "client-ca", Usage: "`FILE` with the CA that clients' certificates must be signed by"},
		}}
}

// web serves until it is interrupted.
func (e *env) web(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	if list, err := s.Sessions(); err != nil && len(list) == 0 { // such as who may not read the registry; what is missing else the page says
		return err
	}
	var o listen.Options
	for _, key := range listen.Keys() {
		o.Set(key, c.String(key))
	}
	if err := o.Check(); err != nil {
		return asUsage(err)
	}
	d, err := listen.Open(o)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.err, "georep: open %s ; Ctrl-C ends it\n", d.URL)
	return web.Run(c.Context, web.Options{Store: s, Log: e.logger(c), Version: version()}, d)
}

// serveWeb is the service's web server, where the configuration file has a [web]. Its trouble is told, and holds nothing up.
func serveWeb(ctx context.Context, s *volume.Store, config string, log zerolog.Logger) {
	want, err := loadConfig(s, config)
	if errors.Is(err, fs.ErrNotExist) || err == nil && want.Web == nil {
		return
	}
	if err != nil {
		log.Error().Err(err).Msg("the web server is not started, since the configuration cannot be read")
		return
	}
	said := ""
	for ctx.Err() == nil {
		d, err := listen.Open(want.Web.Options)
		if err == nil {
			err = web.Run(ctx, web.Options{Store: s, Log: log, Version: version()}, d)
		}
		if err == nil {
			return
		}
		if text := err.Error(); text != said {
			said = text
			log.Error().Err(err).Msg("the web server does not run, and is tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(webAgain):
		}
	}
}
