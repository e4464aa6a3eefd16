package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"georep/crawler"
	"georep/internal/worker"
	"georep/monitor"
	"georep/slave"
	"georep/status"
	"georep/volume"
)

// Bounds of a repair.
const (
	repairRounds = 5      // a stamp that was on its way may hide what was taken back
	maxRepaired  = 10_000 // differences remembered to be repaired in one run
)

func (e *env) verifyCommand() *cli.Command {
	return &cli.Command{Name: "verify", ArgsUsage: "MASTER [SLAVE [PATH]]", Action: e.verify,
		Usage: "compare both sides in full, by hash; also while the session runs",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "repair", Usage: "have differences repaired by the session, or by a sync if none runs"},
			&cli.BoolFlag{Name: "json", Usage: "one JSON object"},
		}}
}

// difference is one on standard output.
type difference struct {
	Path  string   `json:"path"`
	Bytes []byte   `json:"path_bytes,omitempty"` // where the path is not UTF-8
	Kinds []string `json:"kinds"`
}

// verification is what verify --json says.
type verification struct {
	Entries     int64        `json:"entries"`
	Bytes       int64        `json:"bytes"`
	Pending     int64        `json:"pending"`
	Lost        int64        `json:"lost"`      // entries with an owner, ACL or time that the slave cannot have, and no other difference
	ByPolicy    int64        `json:"by_policy"` // entries that the policy of the slave's host changed, with no other difference
	Policy      string       `json:"policy,omitempty"`
	Unlinked    int64        `json:"links_not_checked"`
	Differences []difference `json:"differences"`
	Repaired    int64        `json:"repaired"`
	Left        int64        `json:"left"` // differences that are still there
}

// verifying is one run of the command. It runs one comparison and, with --repair, up to repairRounds more of what
// differed. Its callbacks come one at a time.
type verifying struct {
	e    *env
	c    *cli.Context
	r    *registration
	json bool
	out  verification
	// paths are of what differs, at most maxRepaired, in the order in which it was found.
	paths  []string
	failed error // of writing
	show   *liveLine
}

// verify exits with 1 where a difference is left, without a word more than the last line.
func (e *env) verify(c *cli.Context) error {
	r, err := existing(c, 3)
	if err != nil {
		return err
	}
	if r.volume, err = r.store.Volume(r.session.Master); err != nil {
		return err
	}
	path := strings.Trim(c.Args().Get(2), "/")
	run := &verifying{e: e, c: c, r: r, json: c.Bool("json")}
	run.out.Differences = []difference{}
	verdict, err := run.compareAll(path)
	if err == nil {
		err = run.failed
	}
	if err != nil {
		return err
	}
	run.out.Entries, run.out.Bytes, run.out.Pending, run.out.Unlinked = verdict.Entries, verdict.Bytes, verdict.Pending,
		verdict.Unlinked
	run.out.Left, run.out.Lost = verdict.Differences, verdict.Lost
	run.out.ByPolicy, run.out.Policy = verdict.Policed, verdict.Policy
	if c.Bool("repair") && run.out.Left > 0 {
		err = run.repair(c.Context)
	}
	if told := run.summary(verdict.Differences); err == nil {
		err = told
	}
	if err == nil && run.out.Left > 0 {
		return errTold
	}
	return err
}

// config is of a worker for this session; verify and repair connect as one would.
func (v *verifying) config() worker.Config {
	return worker.Config{Store: v.r.store, Session: v.r.session, Volume: v.r.volume, Version: version(), Logger: v.e.logger(v.c)}
}

// compare looks at the tree, or at the paths of o.Only, over a connection of its own; the session may run meanwhile.
func (v *verifying) compare(ctx context.Context, o crawler.VerifyOptions) (crawler.VerifySummary, error) {
	return worker.Verify(ctx, worker.VerifyConfig{Config: v.config(), VerifyOptions: o})
}

// compareAll is compare of all that is below path, and shows how far it is.
func (v *verifying) compareAll(path string) (crawler.VerifySummary, error) {
	seen, known := &slave.Seen{}, &atomic.Int64{}
	of := func() int64 {
		if path != "" {
			return 0
		}
		return known.Load()
	}
	v.show = v.e.showSeen(seen, of)
	defer v.show.end()
	return worker.Verify(v.c.Context, worker.VerifyConfig{Config: v.config(), Known: known,
		VerifyOptions: crawler.VerifyOptions{Path: path, Found: v.found, Seen: seen}})
}

// found tells a difference, at once.
func (v *verifying) found(d crawler.Difference) {
	if len(v.paths) < maxRepaired {
		v.paths = append(v.paths, d.Path)
	}
	if v.json {
		out := difference{Kinds: d.Kinds}
		out.Path, out.Bytes = utf8Path(d.Path)
		v.out.Differences = append(v.out.Differences, out)
		return
	}
	v.show.clear()
	if _, err := fmt.Fprintf(v.e.out, "%s %s\n", strings.Join(d.Kinds, ","), strconv.Quote(d.Path)); err != nil {
		v.failed = err
	}
}

// repair makes the session compare what differs, and looks what is left of it.
func (v *verifying) repair(ctx context.Context) error {
	more := v.out.Left - int64(len(v.paths))
	left := v.paths
	for range repairRounds {
		if len(left) == 0 {
			break
		}
		// The slave is made to differ first, and crawled then: a crawl that is under way would find it in step.
		if err := worker.Distrust(ctx, v.config(), left); err != nil {
			return err
		}
		if err := v.crawl(ctx); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		var still []string
		_, err := v.compare(ctx, crawler.VerifyOptions{Only: left, Waits: func(path string) { still = append(still, path) },
			Found: func(d crawler.Difference) { still = append(still, d.Path) }})
		if err != nil {
			return err
		}
		left = still
	}
	v.out.Repaired, v.out.Left = int64(len(v.paths)-len(left)), int64(len(left))+more
	for _, path := range left {
		if !v.json {
			fmt.Fprintf(v.e.out, "not repaired %s\n", strconv.Quote(path))
		}
	}
	return nil
}

// crawl has the slave brought in step: by the worker that runs, which begins anew with a look at the slave's root, or by a
// sync.
func (v *verifying) crawl(ctx context.Context) error {
	pid, err := status.AcquirePid(v.r.files().Pid)
	if err == nil {
		_, err := v.e.syncOnce(ctx, v.c, v.r)
		return errors.Join(err, pid.Close())
	}
	if !errors.Is(err, status.ErrRunning) {
		return err
	}
	s, err := v.r.store.Session(v.r.session.Master, v.r.session.Slave)
	if err != nil {
		return err
	}
	return awaitCrawl(ctx, v.r.store, s)
}

// awaitCrawl makes the worker look at its slave again, and waits until it is in step with what the master is now.
func awaitCrawl(ctx context.Context, store *volume.Store, s volume.Session) error {
	if err := monitor.Reload(store, s); err != nil {
		return err
	}
	began := time.Now()
	st, err := monitor.WaitStatus(ctx, store, s, func(st status.Status) bool {
		return st.State == status.Faulty || st.State == status.Paused || st.LastSynced.After(began)
	})
	switch {
	case err != nil || st.LastSynced.After(began):
		return err
	case st.State == status.Paused:
		return fmt.Errorf("the session is paused: go on with georep resume %s %s", s.Master, s.Slave)
	}
	return errors.New(st.Reason)
}

// summary is the last line.
func (v *verifying) summary(found int64) error {
	if v.json {
		return printJSON(v.e.out, v.out)
	}
	text := fmt.Sprintf("%d entries, %s: %d differ, %d pending", v.out.Entries, status.Bytes(v.out.Bytes), found, v.out.Pending)
	if v.c.Bool("repair") {
		text += fmt.Sprintf(", %d repaired", v.out.Repaired)
	}
	if v.out.Lost > 0 {
		text += fmt.Sprintf(", %d lost there (an owner, ACL or time that the slave's files cannot have)", v.out.Lost)
	}
	if v.out.ByPolicy > 0 {
		text += fmt.Sprintf(", by the slave's policy: %d (%s)", v.out.ByPolicy, status.Printable(v.out.Policy))
	}
	if v.out.Unlinked > 0 {
		text += fmt.Sprintf(", the names of %d inodes not checked", v.out.Unlinked)
	}
	_, err := fmt.Fprintln(v.e.out, text)
	return err
}
