package main

import (
	"bufio"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"georep/internal/worker"
	"georep/marker/xtime"
	"georep/status"
)

func (f failover) divergenceCommand() *cli.Command {
	return &cli.Command{Name: "divergence", ArgsUsage: "MASTER [SLAVE]", Action: f.divergence,
		Usage: "list what the master has changed since its slave was last in step; the slave is not asked",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "null", Usage: "paths only, each ended by a zero byte, for rsync --files-from or tar -T"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object a line, the last one the summary"},
		}}
}

// diverged is a line of divergence --json.
type diverged struct {
	Path      string      `json:"path"`
	Bytes     []byte      `json:"path_bytes,omitempty"` // where the path is not UTF-8
	Directory bool        `json:"directory"`
	Below     bool        `json:"below"` // a directory in which something is told, and which may have changed itself
	Size      int64       `json:"size"`
	Changed   status.Time `json:"changed"` // when it was marked
	Error     string      `json:"error,omitempty"`
}

// divergenceSum is the last line of divergence --json.
type divergenceSum struct {
	Entries int64       `json:"entries"`
	Bytes   int64       `json:"bytes"`
	Failed  int64       `json:"failed"` // entries that could not be looked at
	Since   status.Time `json:"since"`
	Read    int         `json:"directories_read"`
}

// divergence exits with 1 where something could not be looked at: it may have changed, too.
func (f failover) divergence(c *cli.Context) error {
	if c.Bool("null") && c.Bool("json") {
		return usagef("divergence takes --null or --json, not both")
	}
	r, err := existing(c, 2)
	if err != nil {
		return err
	}
	if r.volume, err = r.store.Volume(r.session.Master); err != nil {
		return err
	}
	st, err := status.Read(r.files().Status)
	if err != nil || st.Stime == 0 {
		return fmt.Errorf("%s was never in step, so all of %s may be missing there", status.Printable(r.session.Slave.String()),
			status.Printable(r.session.Master))
	}
	since := xtime.Time(st.Stime)
	l := &divergenceList{f: f, c: c, out: bufio.NewWriter(f.out), sum: divergenceSum{Since: status.Time{Time: since.Time()}}}
	l.sum.Read, err = worker.Divergence(c.Context, worker.Config{Store: r.store, Session: r.session, Volume: r.volume, Version: version(),
		Logger: f.logger(c)}, since, l.add)
	if err == nil {
		err = l.end()
	}
	return errors.Join(err, l.out.Flush())
}

// divergenceList writes what is found.
type divergenceList struct {
	f   failover
	c   *cli.Context
	out *bufio.Writer
	sum divergenceSum
}

func (l *divergenceList) add(d worker.Diverged) error {
	if d.Err != nil {
		l.sum.Failed++
	} else if !d.Below {
		l.sum.Entries++
		l.sum.Bytes += d.Size
	}
	path := d.Path
	if path == "" {
		path = "."
	}
	switch {
	case l.c.Bool("null"):
		if d.Err != nil {
			fmt.Fprintf(l.f.err, "georep: %s\n", status.Printable(d.Err.Error()))
			return nil
		}
		_, err := fmt.Fprintf(l.out, "%s\x00", path)
		return err
	case l.c.Bool("json"):
		line := diverged{Path: path, Directory: d.Dir, Below: d.Below, Size: d.Size, Changed: status.Time{Time: d.Xtime.Time()}}
		if d.Err != nil {
			line.Error, line.Changed = d.Err.Error(), status.Time{}
		}
		if !utf8.ValidString(path) {
			line.Bytes = []byte(path)
		}
		return printLine(l.out, line)
	case d.Err != nil:
		_, err := fmt.Fprintf(l.out, "?                        %s\n", status.Printable(d.Err.Error()))
		return err
	case d.Below:
		return nil
	}
	if d.Dir {
		path += "/"
	}
	_, err := fmt.Fprintf(l.out, "%s  %s\n", d.Xtime.Time().Local().Format(timeFormat), status.Printable(path))
	return err
}

// end says how much it was.
func (l *divergenceList) end() error {
	switch {
	case l.c.Bool("json"):
		if err := printLine(l.out, l.sum); err != nil {
			return err
		}
	case !l.c.Bool("null"):
		fmt.Fprintf(l.out, "%s with %s changed since %s\n", count(int(l.sum.Entries), "entry", "entries"), status.Bytes(l.sum.Bytes),
			l.sum.Since.Local().Format(timeFormat))
	}
	if l.sum.Failed > 0 {
		return fmt.Errorf("%s could not be looked at, and may have changed", count(int(l.sum.Failed), "entry", "entries"))
	}
	return nil
}
