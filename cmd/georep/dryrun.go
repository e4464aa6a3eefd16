package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"georep/crawler"
	"georep/internal/beneath"
	"georep/internal/connect"
	"georep/internal/worker"
	"georep/marker/xtime"
	"georep/slave"
	"georep/status"
	"georep/volume"
)

// dryFlags are those of a command that can tell what it would do.
func dryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "show what would be done on the slave, and change nothing on either side"},
		&cli.BoolFlag{Name: "json", Usage: "with --dry-run: a JSON object a line, the last one the summary"},
		yesFlag(),
	}
}

// checkDry refuses flags that would say nothing on their own: whoever gives them expects something else than what comes.
func checkDry(c *cli.Context) error {
	if c.Bool("json") && !c.Bool("dry-run") {
		return usagef("--json goes with --dry-run: %s itself prints no JSON; see georep status --json", c.Command.Name)
	}
	if c.Bool("yes") && !c.Bool("force") {
		return usagef("--yes answers what --force asks: give both, or neither")
	}
	return nil
}

// foretold is a line of a dry run.
type foretold struct {
	Do        crawler.Doing `json:"do"`
	Path      string        `json:"path"`
	PathBytes []byte        `json:"path_bytes,omitempty"` // where it is not UTF-8
	From      string        `json:"from,omitempty"`
	FromBytes []byte        `json:"from_bytes,omitempty"`
	Kind      string        `json:"kind"`
	Changes   []string      `json:"changes,omitempty"`
	Bytes     int64         `json:"bytes"`
	Entries   int64         `json:"entries"`
}

// forecast is its last line.
type forecast struct {
	Made    int64 `json:"made"`
	Changed int64 `json:"changed"`
	Moved   int64 `json:"moved"`
	Linked  int64 `json:"linked"`
	Removed int64 `json:"removed"`
	Bytes   int64 `json:"bytes"`
	NoMoves bool  `json:"moves_not_told,omitempty"`
}

// dryRun says what a sync would do.
func (e *env) dryRun(c *cli.Context, t target) error {
	r, err := inMemory(c, t)
	if err != nil {
		return err
	}
	var failed error
	sum, err := worker.DryRun(c.Context, e.workerConfig(c, r), func(ch crawler.Change) {
		if failed == nil {
			failed = e.foretell(c.Bool("json"), &ch)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if c.Bool("json") {
		return e.line(map[string]forecast{"summary": {sum.Made, sum.Changed, sum.Moved, sum.Linked, sum.Removed, sum.Bytes, sum.NoMoves}})
	}
	text := fmt.Sprintf("would make %d, change %d, move %d, link %d and remove %d entries, and send up to %s of content; nothing was touched\n",
		sum.Made, sum.Changed, sum.Moved, sum.Linked, sum.Removed, status.Bytes(sum.Bytes))
	if sum.NoMoves {
		text += "so much has left its place that some of what moves is told as made and removed\n"
	}
	_, err = fmt.Fprint(e.out, text)
	return err
}

func (e *env) workerConfig(c *cli.Context, r *registration) worker.Config {
	return worker.Config{Store: r.store, Session: r.session, Volume: r.volume, Version: version(), Logger: e.logger(c), Force: c.Bool("force")}
}

// line writes a JSON object a line, as printJSON does one of many lines.
func (e *env) line(v any) error { return printLine(e.out, v) }

// printLine writes an object a line, as printJSON does one of several.
func printLine(w io.Writer, v any) error { return json.NewEncoder(status.JSONWriter{W: w}).Encode(v) }

// foretell writes one change.
func (e *env) foretell(asJSON bool, ch *crawler.Change) error {
	if !asJSON {
		_, err := fmt.Fprintln(e.out, sentence(ch))
		return err
	}
	out := foretold{Do: ch.Do, Path: ch.Path, From: ch.From, Kind: ch.Kind.String(), Changes: ch.Props, Bytes: ch.Bytes, Entries: ch.Entries}
	out.Path, out.PathBytes = utf8Path(ch.Path)
	out.From, out.FromBytes = utf8Path(ch.From)
	return e.line(out)
}

// utf8Path is a path as JSON can carry it, and its bytes where that is not all.
func utf8Path(path string) (string, []byte) {
	if utf8.ValidString(path) {
		return path, nil
	}
	return strings.ToValidUTF8(path, "\uFFFD"), []byte(path)
}

// sentence is a change for people: what, the path, and what of it.
func sentence(ch *crawler.Change) string {
	path, more := strconv.Quote(shown(ch.Path, ch.Kind)), ""
	switch ch.Do {
	case crawler.Make:
		if more = ch.Kind.String(); ch.Kind == slave.File {
			more += ", " + status.Bytes(ch.Bytes)
		}
	case crawler.Modify:
		if more = strings.Join(ch.Props, ", "); ch.Bytes > 0 {
			more += "; " + status.Bytes(ch.Bytes)
		}
	case crawler.Move:
		path = strconv.Quote(shown(ch.From, ch.Kind)) + " -> " + path
		more = strings.Join(ch.Props, ", ")
	case crawler.Link:
		path += " = " + strconv.Quote(ch.From)
	case crawler.Remove:
		if ch.Kind == slave.Dir {
			more = fmt.Sprintf("%d entries", ch.Entries)
		}
	}
	if more != "" {
		more = "  (" + more + ")"
	}
	return fmt.Sprintf("%-6s %s%s", ch.Do, path, more)
}

func shown(path string, k slave.Kind) string {
	if k == slave.Dir {
		return path + "/"
	}
	return path
}

// inMemory is register that saves nothing: the session as the flags would have it, and a volume for a directory that is none yet.
func inMemory(c *cli.Context, t target) (*registration, error) {
	r := &registration{store: t.store}
	var err error
	if r.volume, err = t.store.Master(t.master); errors.Is(err, volume.ErrNoVolume) && t.master.Path != "" {
		r.volume, err = unregistered(t.store, t.master.Path)
	}
	if err != nil {
		return nil, err
	}
	s, err := t.store.Session(r.volume.Name, t.slave)
	if errors.Is(err, volume.ErrNoSession) || errors.Is(err, volume.ErrNoVolume) {
		s, err = volume.Session{Master: r.volume.Name, Slave: t.slave, UUID: xtime.NewUUID().String(), Config: map[string]string{}}, nil
	}
	if err != nil {
		return nil, err
	}
	r.session = s.Clone()
	return r, applyFlags(c, &r.session)
}

// unregistered is the volume that a directory would become, as far as nobody has to try what its file system takes.
func unregistered(s *volume.Store, path string) (v volume.Volume, err error) {
	if v.Path, err = volume.ResolveDir(path); err != nil {
		return v, beneath.RootError(path, err)
	}
	if v.Name, err = s.NameForPath(path); err != nil {
		return v, err
	}
	v.UUID, v.Namespace = xtime.NewUUID().String(), string(xtime.User)
	if os.Geteuid() == 0 {
		v.Namespace = string(xtime.Trusted)
	}
	return v, nil
}

// agreedToForce says what --force would remove of the slave's own, and asks if that is anything. A slave that needs no force, or
// that cannot be looked at, is not asked about: the command itself tells.
func (e *env) agreedToForce(c *cli.Context, r *registration) error {
	if !c.Bool("force") || c.Bool("yes") {
		return nil
	}
	cfg := e.workerConfig(c, r)
	cfg.Force = false
	err := worker.Look(c.Context, cfg)
	if !slices.ContainsFunc([]error{slave.ErrNotEmpty, slave.ErrForeign, slave.ErrAbsent, slave.ErrUnfit}, // such as a damaged owner's file
		func(needs error) bool { return errors.Is(err, needs) }) {
		return nil
	}
	cfg.Force = true
	var removed []crawler.Change
	sum, err := worker.Removals(c.Context, cfg, func(ch crawler.Change) {
		if len(removed) < maxPurged {
			removed = append(removed, ch)
		}
	})
	if err != nil || sum.Removed == 0 {
		return ignoreRefused(err)
	}
	fmt.Fprintf(e.out, "--force would remove %d entries that the slave has and the master has not:\n", sum.Removed)
	left := sum.Removed
	for i := range removed {
		left -= removed[i].Entries
		fmt.Fprintln(e.out, "  "+sentence(&removed[i]))
	}
	if left > 0 {
		fmt.Fprintf(e.out, "  ... and %d more entries\n", left)
	}
	return e.agreed(c, "Take the slave, and let these be removed?")
}

// ignoreRefused leaves to the command what keeps it from going on in any case.
func ignoreRefused(err error) error {
	if err != nil && connect.Final(err) {
		return nil
	}
	return err
}
