package main

import (
	"errors"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"
	"gopkg.in/natefinch/lumberjack.v2"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/internal/confine"
	"georep/internal/worker"
	"georep/marker"
	"georep/status"
)

// The marker's log: 10 MB and three older ones.
const (
	logMegabytes = 10
	logBackups   = 3
)

// never stands for a slow scan that is switched off.
const never = 10 * 365 * 24 * time.Hour

func (e *env) markerCommand() *cli.Command {
	return &cli.Command{Name: "marker", Hidden: true, Usage: "mark changes in a volume", ArgsUsage: "VOLUME",
		Action: e.marker, Flags: []cli.Flag{
			&cli.StringFlag{Name: "source", Value: marker.SourceAuto, Usage: strings.Join(marker.Sources(), ", ")},
			&cli.DurationFlag{Name: "scan-interval", Usage: "time between slow scans; 0: none"},
			&cli.DurationFlag{Name: "max-delay", Usage: "longest time until a write without an event is marked; 0: 5s"},
		}}
}

// marker runs until nobody holds the volume's users' lock any more. It is one for all sessions of a volume, so its
// settings are those of the session that started it.
func (e *env) marker(c *cli.Context) error {
	s, v, err := volumeArg(c)
	if err != nil {
		return err
	}
	files, err := s.MakeRuntime(v.Name)
	if err != nil {
		return err
	}
	file := &lumberjack.Logger{Filename: files.MarkerLog, MaxSize: logMegabytes, MaxBackups: logBackups}
	defer file.Close()
	log := zerolog.New(status.JSONWriter{W: file}).Level(levelOr(globals(c).String("log-level"), "info")).With().Timestamp().Logger()
	o, err := worker.MarkerOptions(s, v, log)
	if err != nil {
		return err
	}
	o.Source, o.ScanInterval, o.ExitWhenUnused = c.String("source"), c.Duration("scan-interval"), true
	o.MaxDelay = c.Duration("max-delay")
	if o.ScanInterval == 0 {
		o.ScanInterval = never
	}
	confined := confine.Process(markerNeeds())
	o.Confined = confined.String()
	log.Info().Strs("holds", confined.Holds).Strs("lacks", confined.Lacks).Msg("the marker is confined")
	err = marker.Run(c.Context, o)
	if errors.Is(err, marker.ErrRunning) {
		return nil // of two that were started together one is enough
	}
	if err != nil {
		log.Error().Err(err).Msg("the marker ends")
	}
	return err
}

// markerNeeds is what a marker goes on to need. It opens what the volume's file system has by handle, asks fanotify, which only
// root may, looks who holds files open for writing, which Landlock would forbid, and has a socket for its hints. It writes no
// contents and runs nothing.
func markerNeeds() confine.Needs {
	return confine.Needs{AnyPath: true,
		Caps:  []cap.Value{cap.SYS_ADMIN, cap.DAC_OVERRIDE, cap.DAC_READ_SEARCH, cap.FOWNER, cap.SYS_PTRACE},
		Calls: []string{"fanotify_init", "inotify_init1", "open_by_handle_at", "open_tree", "socket", "bind", "listen", "ioctl", "memfd_create"}}
}
