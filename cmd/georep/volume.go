package main

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"georep/internal/strip"
	"georep/slave/disk"
	"georep/status"
	"georep/volume"
)

// jsonFlag is the same for every listing.
func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON"} }

func (e *env) volumeCommand() *cli.Command {
	return &cli.Command{
		Name: "volume", Usage: "register directory trees",
		Action: func(c *cli.Context) error {
			return usagef("volume needs create, list, info, set, log, delete or purge")
		},
		Subcommands: []*cli.Command{
			{Name: "create", Usage: "make a directory a volume", ArgsUsage: "NAME PATH", Action: e.volumeCreate},
			{Name: "list", Usage: "list the volumes", Flags: []cli.Flag{jsonFlag()}, Action: e.volumeList},
			{Name: "info", Usage: "show one volume", ArgsUsage: "NAME", Flags: []cli.Flag{jsonFlag()}, Action: e.volumeInfo},
			{Name: "set", Usage: "show and change the policy of a volume that is a slave", ArgsUsage: "NAME [KEY [VALUE]]",
				Flags: []cli.Flag{jsonFlag()}, Action: e.volumeSet},
			{Name: "log", Usage: "show the audit log of a volume that is a slave", ArgsUsage: "NAME", Flags: []cli.Flag{jsonFlag()},
				Action: e.volumeLog},
			{Name: "delete", Usage: "forget a volume; its directory stays", ArgsUsage: "NAME", Action: e.volumeDelete},
			e.volumePurgeCommand(),
		},
	}
}

func (e *env) volumeCreate(c *cli.Context) error {
	if err := wants(c, 2, 2); err != nil {
		return err
	}
	name, path := c.Args().Get(0), c.Args().Get(1)
	if err := volume.CheckName(name); err != nil {
		return asUsage(err)
	}
	if !filepath.IsAbs(path) {
		return usagef("the path %q is not absolute", path)
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	_, err = createVolume(s, name, path)
	return err
}

// volumeArg finds the volume that the one argument names.
func volumeArg(c *cli.Context) (s *volume.Store, v volume.Volume, err error) {
	if err := wants(c, 1, 1); err != nil {
		return nil, v, err
	}
	if err := volume.CheckName(c.Args().First()); err != nil {
		return nil, v, asUsage(err)
	}
	if s, err = store(c); err != nil {
		return nil, v, err
	}
	v, err = s.Volume(c.Args().First())
	return s, v, err
}

// volumeList prints the volumes that can be read, also where one cannot, and fails then.
func (e *env) volumeList(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	list, err := s.Volumes()
	if c.Bool("json") {
		if list == nil {
			list = []volume.Volume{}
		}
		return firstError(printJSON(e.out, list), err)
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tPATH")
	for _, v := range list {
		fmt.Fprintf(w, "%s\t%s\n", status.Printable(v.Name), status.Printable(v.Path))
	}
	return firstError(w.Flush(), err)
}

func (e *env) volumeInfo(c *cli.Context) error {
	_, v, err := volumeArg(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(e.out, v)
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	rows := [][2]string{{"name", v.Name}, {"path", v.Path}, {"uuid", v.UUID},
		{"created", v.Created.Local().Format(time.DateTime + " MST")}, {"root gfid", v.RootGFID}, {"file system", v.FSID},
		{"xattr namespace", v.Namespace}}
	if bytes, entries, known := disk.Held(v.Path); known {
		rows = append(rows, [2]string{"holds as a slave", fmt.Sprintf("%s in %d entries", status.Bytes(bytes), entries)})
	}
	rows = append(rows, slaveRows(v.Path)...)
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\n", row[0], status.Printable(row[1]))
	}
	return w.Flush()
}

// slaveRows says whose slave a directory is, and whether it still follows its master; nothing of what is no slave.
func slaveRows(path string) [][2]string {
	o, err := strip.Owner(path)
	if err != nil {
		return [][2]string{{"slave of", "cannot be told: " + err.Error()}}
	}
	if o == nil {
		return nil
	}
	rows := [][2]string{{"slave of", o.Master.String()}}
	if p := &o.Promoted; p.Holds() {
		rows = append(rows, [2]string{"promoted", fmt.Sprintf("%s by %s, epoch %d; it had %s", p.At.Local().Format(timeFormat), p.By, p.Epoch, p.Has())})
	}
	return rows
}

func (e *env) volumeDelete(c *cli.Context) error {
	s, v, err := volumeArg(c)
	if err != nil {
		return err
	}
	if err := volumeFree(s, v); err != nil {
		return err
	}
	return s.DeleteVolume(v.Name)
}

// printJSON writes what no terminal takes for a command: see status.JSONWriter.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(status.JSONWriter{W: w})
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// firstError is the first of the errors that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
