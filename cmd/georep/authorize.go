package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"georep/internal/authorize"
	"georep/internal/connect"
	"georep/slave"
	"georep/volume"
)

func (e *env) authorizeCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.BoolFlag{Name: "print", Usage: "print the line for authorized_keys, to be put there by other means"},
		&cli.StringFlag{Name: "ssh", Value: "ssh", Usage: "`COMMAND` by which you log in there, with its options"},
	}
	for _, f := range sessionFlags() {
		if slices.Contains(wayFlags, f.Names()[0]) && f.Names()[0] != "identity" {
			flags = append(flags, f)
		}
	}
	return &cli.Command{Name: "authorize", ArgsUsage: "MASTER SLAVE", Action: e.authorize, Flags: flags,
		Usage: "give the session a key of its own, restricted to what its slave needs"}
}

// authorize registers the session where that is not done yet, gives it a key, puts the key's line on the slave's host as the
// operator, and makes sure that the session can log in by it.
func (e *env) authorize(c *cli.Context) error {
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	if t.slave.Local() {
		return usagef("%s is a directory of this host: no key is needed", t.slave)
	}
	words := strings.Fields(c.String("ssh"))
	if len(words) == 0 {
		return usagef("--ssh is empty")
	}
	r, err := register(c, t)
	if err != nil {
		return err
	}
	if err := e.giveKey(c, r, words); err != nil {
		return r.undo(err)
	}
	return nil
}

func (e *env) giveKey(c *cli.Context, r *registration, words []string) error {
	o, err := r.session.Options()
	if err != nil {
		return err
	}
	if o.Identity != "" {
		return fmt.Errorf("the session uses the key %s: give that up first, by georep config %s %s --reset identity", o.Identity,
			r.session.Master, r.session.Slave)
	}
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	comment := fmt.Sprintf("georep:%s@%s", r.session.Master, host)
	key, made, err := authorize.Key(r.files().Key, comment)
	if err != nil {
		return err
	}
	if r.session.Slave.Serve {
		return slaveServer{e}.keyFor(c, r, authorize.ServeLine(key, r.session.Slave.Volume, r.volume.UUID, comment))
	}
	forced := connect.ForcedCommand(r.session, o, r.volume)
	line, err := authorize.Line(key, forced, comment)
	if err != nil {
		return err
	}
	if forced == connect.SFTPCommand {
		fmt.Fprintf(e.err, "georep: by SFTP alone sshd holds no key to a directory: this one reaches all files that %s may, unless "+
			"sshd locks that account in (ChrootDirectory)\n", account(r.session))
	}
	if c.Bool("print") {
		_, err := fmt.Fprintln(e.out, line)
		return err
	}
	again, err := authorize.Install(c.Context, authorize.Login{Command: operator(words, o), Account: account(r.session),
		Stderr: e.err}, key, line)
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; install the OpenSSH client, or use --print", err)
	}
	if err != nil {
		return fmt.Errorf("%w; see what %s says, or use --print", err, words[0])
	}
	if err := e.tryKey(c, r); err != nil {
		return fmt.Errorf("the line is in authorized_keys of %s, and the session cannot use it: %w", account(r.session), err)
	}
	if _, err := reload(r.store, r.session); err != nil { // it may stand Faulty since the login was refused
		return err
	}
	return e.authorized(r, made, again)
}

// operator is the command by which the operator logs in.
func operator(words []string, o volume.Options) []string {
	command := slices.Clone(words)
	if file := os.Getenv("GEOREP_SSH_CONFIG"); file != "" {
		command = append(command, "-F", file)
	}
	if o.SSHPort != 0 {
		command = append(command, "-p", strconv.Itoa(o.SSHPort))
	}
	return command
}

// account is whom the session logs in as.
func account(s volume.Session) string {
	if s.Slave.User == "" {
		return s.Slave.Host
	}
	return s.Slave.User + "@" + s.Slave.Host
}

// tryKey logs in as the session does. A session that is new is checked as by create.
func (e *env) tryKey(c *cli.Context, r *registration) error {
	if r.newSession {
		return r.check(c.Context, c, e)
	}
	tree, err := connect.Inspect(c.Context, connect.Config{Store: r.store, Session: r.session, Volume: r.volume, DryRun: true,
		Version: version(), Logger: e.logger(c), Wire: new(atomic.Int64)})
	if errors.Is(err, slave.ErrNoVolume) && r.session.Slave.Volume == "" {
		return nil // the key came as far as that; start makes the directory
	}
	if err != nil {
		return err
	}
	return tree.Close()
}

// authorized says what was done.
func (e *env) authorized(r *registration, made, again bool) error {
	key, line := "uses its key", "its line was there already"
	if made {
		key = "has a key of its own"
	}
	if !again {
		line = "its line is in authorized_keys now"
	}
	_, err := fmt.Fprintf(e.out, "session %s to %s %s (%s); %s on %s, and lets it in\n", r.session.Master, r.session.Slave, key, r.files().Key, line,
		account(r.session))
	return err
}
