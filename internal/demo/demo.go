// Package demo shows a whole session on one machine: a small master, an empty slave, and between them a real SSH
// connection to an embedded server. The session is run by the program itself, through its own command line; the demo
// only changes the master, watches the status, and compares both trees at the end.
//
// It owns one temporary directory, with everything in it, and the SSH server. When Run has returned nothing of it is
// left, neither files nor processes. It touches nothing outside that directory.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/sshserver"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// patience bounds each wait of the demo; stopPatience its end.
const (
	patience     = 2 * time.Minute
	stopPatience = time.Minute
)

// Config says how to show it.
type Config struct {
	// Program is run for each command, as a user would run it; it must be a georep.
	Program string // georep itself
	Dir     string // where to make the temporary directory; "" finds a place
	Keep    bool   // stay until ctx ends
	// Out gets what is shown; Logger what the SSH server has to say.
	Out    io.Writer
	Logger zerolog.Logger
}

// Run shows the demo and cleans up behind it, also when ctx ends.
func Run(ctx context.Context, c Config) (err error) {
	p, err := findPlace(c.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.remove()) }()
	server, err := sshserver.New(sshserver.Config{Handler: sshserver.Shell, Logger: c.Logger})
	if err != nil {
		return err
	}
	// The server outlives ctx, so that the session ends in good order.
	serving, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = server.Run(serving) })
	d := &demo{Config: c, place: p}
	if err := d.prepare(server); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop(ctx)) }()
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if c.Keep {
		d.keep(ctx)
	}
	return nil
}

// demo is one run.
type demo struct {
	Config
	*place
	// The master's registry. The slave's is another one, as on another host, and is never opened here.
	store *volume.Store
	slave volume.Slave
	flags []string // how the program reaches the server
}

// say writes a line for whoever watches.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", args...) }

// prepare writes what an SSH client needs, and registers both volumes as on two hosts.
func (d *demo) prepare(server *sshserver.Server) error {
	host, port, err := splitPort(server.Addr().String())
	if err != nil {
		return err
	}
	files := map[string]string{"identity": string(server.ClientKey()), "known_hosts": server.KnownHostsLine() + "\n",
		"ssh_config": fmt.Sprintf("Host georep-demo\n  HostName %s\n  Port %d\n  IdentityFile %q\n  UserKnownHostsFile %q\n",
			host, port, d.path("identity"), d.path("known_hosts"))}
	for name, text := range files {
		if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	if d.slave, err = volume.ParseSlave(host + "::copy"); err != nil {
		return err
	}
	if d.store, err = volume.OpenStore(d.path("state")); err != nil {
		return err
	}
	d.flags = []string{"--ssh-port", strconv.Itoa(port), "--identity", d.path("identity"), "--known-hosts",
		d.path("known_hosts"), "--remote-georep", d.Program, "--remote-state-dir", d.path("slave-state")}
	return nil
}

// splitPort takes the server's address apart; it is of IPv4.
func splitPort(addr string) (host string, port int, err error) {
	i := strings.LastIndexByte(addr, ':')
	if port, err = strconv.Atoi(addr[i+1:]); err != nil {
		return "", 0, fmt.Errorf("demo: the server's address %q: %w", addr, err)
	}
	return addr[:i], port, nil
}

// georep runs the program. Its own words explain an error. It is not cut short when ctx ends: a monitor that is on its
// way up could not be found, and not be stopped.
func (d *demo) georep(ctx context.Context, stateDir string, args ...string) error {
	cmd := exec.Command(d.Program, append([]string{"--state-dir", d.path(stateDir)}, args...)...)
	// The session goes this way and no other, whatever the user's own configuration says. The Ctrl-C is for the demo.
	cmd.Env = append(os.Environ(), "GEOREP_SSH_CONFIG=none", "SSH_AUTH_SOCK=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = io.Discard, &said
	if err := cmd.Run(); err != nil {
		if text := strings.TrimSpace(said.String()); text != "" {
			return fmt.Errorf("demo: %s: %s", args[0], strings.TrimPrefix(text, "georep: "))
		}
		return fmt.Errorf("demo: %s: %w", args[0], err)
	}
	return ctx.Err()
}

// start fills the master, makes both volumes, and waits until the slave has everything.
func (d *demo) start(ctx context.Context) error {
	d.say("Everything is in %s; the master's xtimes are kept in %s.* attributes.", d.dir, d.namespace)
	if err := fill(d.path("master")); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	d.say("\nA master with files, links and directories; an empty slave, called copy on \"its\" host:")
	d.say("    georep volume create copy %s\n    georep volume create data %s", d.path("slave"), d.path("master"))
	if err := d.georep(ctx, "slave-state", "volume", "create", "copy", d.path("slave")); err != nil {
		return err
	}
	if err := d.georep(ctx, "state", "volume", "create", "data", d.path("master")); err != nil {
		return err
	}
	began := time.Now()
	d.say("\nThe session, over SSH to a server in this process:\n    georep start data %s", d.slave)
	if err := d.georep(ctx, "state", append([]string{"start", "data", d.slave.String()}, d.flags...)...); err != nil {
		return err
	}
	st, err := d.waitInStep(ctx, began)
	if err != nil {
		return err
	}
	if st.Marker == "scan" {
		d.say("The kernel tells no events here (a network file system, or a limit), so the marker scans: each step takes some seconds.")
	}
	return nil
}

// show makes one change after the other.
func (d *demo) show(ctx context.Context) error {
	for _, s := range steps() {
		d.say("\n%s", s.text)
		if err := s.change(d.path("master")); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		if _, err := d.waitInStep(ctx, time.Now()); err != nil {
			return err
		}
	}
	entries, err := compare(d.path("master"), d.path("slave"))
	if err != nil {
		return err
	}
	d.say("\nCompared name by name: %d entries, all equal on the slave (kinds, contents, links, modes, times).", entries)
	return nil
}

// waitInStep shows the status each time it changes, until the slave has everything that was there at the given time.
func (d *demo) waitInStep(ctx context.Context, since time.Time) (status.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	shown := ""
	show := func(st status.Status) {
		if now := fmt.Sprint(st.State, st.Crawl, st.Reason); now != shown {
			shown = now
			d.table(st)
		}
	}
	st, err := monitor.WaitStatus(ctx, d.store, volume.Session{Master: "data", Slave: d.slave, Started: true},
		func(st status.Status) bool {
			done := st.LastSynced.After(since) && st.State == status.Active && st.FailuresTotal == 0
			if done || st.LastSynced.IsZero() || st.State != status.Active {
				show(st)
			}
			return done || st.State == status.Faulty && st.FinalReason
		})
	if errors.Is(err, context.DeadlineExceeded) {
		return st, fmt.Errorf("demo: the slave is not in step after %s: %s", patience, st.Reason)
	}
	if err == nil && st.State == status.Faulty {
		return st, fmt.Errorf("demo: %s", st.Reason)
	}
	if err == nil {
		d.say("  known to be in step after %s; %d files and %s sent so far", time.Since(since).Round(time.Millisecond),
			st.Synced.Files, status.Bytes(st.Synced.BytesContent))
	}
	return st, err
}

// table shows the status as georep status does, and the reason where there is one.
func (d *demo) table(st status.Status) {
	var b strings.Builder
	// A strings.Builder takes everything.
	_ = status.WriteTable(&b, []status.Status{st}, false)
	for line := range strings.Lines(b.String()) {
		io.WriteString(d.Out, "  "+line)
	}
	if st.Reason != "" {
		d.say("  %s", status.Printable(st.Reason))
	}
}

// stop ends the session, also when ctx has ended.
func (d *demo) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	s, err := d.store.Session("data", d.slave)
	if errors.Is(err, volume.ErrNoSession) || errors.Is(err, volume.ErrNoVolume) {
		return nil
	}
	if err != nil {
		return err
	}
	err = monitor.Stop(ctx, d.store, s)
	if errors.Is(err, monitor.ErrNotRunning) {
		return nil
	}
	return err
}

// keep tells what can be played with, and waits.
func (d *demo) keep(ctx context.Context) {
	g := d.Program + " --state-dir " + d.path("state")
	d.say("\nIt goes on until Ctrl-C. Change what you like in\n    %s\nand look at\n    %s\nTry", d.path("master"), d.path("slave"))
	d.say("    %s status --detail --watch\n    %s pause data %s\n    %s resume data %s\n    %s config data %s", g, g, d.slave,
		g, d.slave, g, d.slave)
	<-ctx.Done()
	d.say("\nStopping.")
}
