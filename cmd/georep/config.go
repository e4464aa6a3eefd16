package main

import (
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"georep/status"
	"georep/volume"
)

func (e *env) configCommand() *cli.Command {
	return &cli.Command{Name: "config", Usage: "show and change a session's settings", Action: e.config,
		ArgsUsage: "MASTER SLAVE [KEY [VALUE...]]",
		Flags:     []cli.Flag{jsonFlag(), &cli.StringFlag{Name: "reset", Usage: "give `KEY` its default again"}}}
}

// config shows one setting, all of them, sets one or resets one, by the number of arguments.
func (e *env) config(c *cli.Context) error {
	most := 4
	if volume.IsList(c.Args().Get(2)) {
		most = c.NArg()
	}
	if c.IsSet("reset") {
		most = 2
	}
	t, err := parseTarget(c, most)
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	key, value := c.Args().Get(2), c.Args().Get(3)
	switch {
	case c.IsSet("reset"):
		return e.change(t.store, s, func(s *volume.Session) error { return s.Reset(c.String("reset")) })
	case c.Args().Len() >= 4 && volume.IsList(key):
		value = strings.Join(c.Args().Slice()[3:], "\n")
		return e.change(t.store, s, func(s *volume.Session) error { return s.Set(key, value) })
	case c.Args().Len() == 4:
		return e.change(t.store, s, func(s *volume.Session) error { return s.Set(key, configValue(key, value)) })
	case c.Args().Len() == 3:
		value, _, err := s.Get(key)
		if err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSON(e.out, value)
		}
		_, err = fmt.Fprintln(e.out, status.Printable(value))
		return err
	}
	return e.listConfig(c, s)
}

// change saves a setting and says from when it counts.
func (e *env) change(store *volume.Store, s volume.Session, change func(*volume.Session) error) error {
	if err := sessionFree(store, s); err != nil {
		return err
	}
	s, err := store.UpdateSession(s.Master, s.Slave, func(s *volume.Session) error {
		before := s.Config["exclude-from"]
		if err := change(s); err != nil || s.Config["exclude-from"] == before {
			return err
		}
		return s.CheckFilter()
	})
	if err != nil {
		return err
	}
	running, err := reload(store, s)
	if err != nil {
		return fmt.Errorf("saved, but the session did not take it up: %w", err)
	}
	when := "saved; it counts from the next start"
	if running {
		when = "saved; the session takes it up now"
	}
	_, err = fmt.Fprintln(e.out, when)
	return err
}

// setting is one row of the listing. It is what --json shows of a key; the fields of ConfigKey stand beside these.
type setting struct {
	volume.ConfigKey
	Value string `json:"value"`
	Set   bool   `json:"set"` // by the operator
}

func (e *env) listConfig(c *cli.Context, s volume.Session) error {
	var list []setting
	var errs []error
	for _, k := range volume.ConfigKeys() {
		value, set, err := s.Get(k.Name)
		errs = append(errs, err)
		list = append(list, setting{ConfigKey: k, Value: value, Set: set})
	}
	if c.Bool("json") {
		return errors.Join(append(errs, printJSON(e.out, list))...)
	}
	w := tabwriter.NewWriter(e.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tVALUE\tDEFAULT\tMEANING")
	for _, k := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Name, status.Printable(k.Value), k.Default, k.Doc)
	}
	return errors.Join(append(errs, w.Flush())...)
}
