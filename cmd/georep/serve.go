package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"georep/internal/serve"
	"georep/volume"
)

// serveMemory is the memory limit of the SSH server, in bytes: each channel may hold 2 MiB that its agent has not taken.
const serveMemory = 256 << 20

// slaveServer has the command by which a host without sshd takes masters in.
type slaveServer struct{ *env }

func (e slaveServer) serveCommand() *cli.Command {
	return &cli.Command{Name: "serve", Action: e.serve, Usage: "let masters replicate to this host without sshd, until Ctrl-C",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "listen", Value: ":" + strconv.Itoa(volume.ServePort), Usage: "`ADDRESS` to listen at: [HOST]:PORT"},
			&cli.IntFlag{Name: "max-agents", Value: 128, Usage: "most streams of all sessions together"},
			&cli.IntFlag{Name: "max-per-key", Value: 48, Usage: "most streams of the sessions of one key"},
			&cli.BoolFlag{Name: "fingerprint", Usage: "print the fingerprint of this host's key, and serve nothing"},
			&cli.StringFlag{Name: "authorize", Usage: "let a key in by `LINE`, as georep authorize printed it on the master's host, and serve nothing"},
		}}
}

// serve is the slave's end as a server of its own. It exits once it is told to, and what has arrived is applied.
func (e slaveServer) serve(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	for _, name := range []string{"max-agents", "max-per-key"} {
		if c.Int(name) < 1 {
			return usagef("--%s is at least 1", name)
		}
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	dir := filepath.Join(s.Dir(), "serve")
	key, err := serve.HostKey(dir)
	if err != nil {
		return err
	}
	switch {
	case c.Bool("fingerprint"):
		_, err := fmt.Fprintln(e.out, ssh.FingerprintSHA256(key.PublicKey()))
		return err
	case c.IsSet("authorize"):
		return e.letIn(serve.KeysFile(dir), c.String("authorize"))
	}
	return e.listenAndServe(c, serve.Config{HostKey: key, Keys: serve.KeysFile(dir),
		Limits: serve.Limits{Agents: c.Int("max-agents"), PerKey: c.Int("max-per-key")},
		Agent:  func(who serve.Client) (*exec.Cmd, error) { return agentFor(c, who) }})
}

// letIn adds a line to the file of keys.
func (e slaveServer) letIn(keys, line string) error {
	key, again, err := serve.Authorize(keys, line)
	if err != nil {
		return fmt.Errorf("authorize: %w", err)
	}
	what := "may log in now"
	if again {
		what = "could log in already"
	}
	_, err = fmt.Fprintf(e.out, "the key %s %s\n", ssh.FingerprintSHA256(key), what)
	return err
}

// keyFor prints what lets the key in where georep serve runs: nobody needs to log in there from here.
func (e slaveServer) keyFor(c *cli.Context, r *registration, line string) error {
	if c.Bool("print") {
		_, err := fmt.Fprintln(e.out, line)
		return err
	}
	_, err := fmt.Fprintf(e.out, "session %s to %s has a key of its own (%s). On %s, as the user of georep serve:\n\n"+
		"georep serve --authorize '%s'\n", r.session.Master, r.session.Slave, r.files().Key, r.session.Slave.Host, line)
	return err
}

// listenAndServe runs the server in this process. SIGHUP has it cut the connections whose key is not what it was.
func (e slaveServer) listenAndServe(c *cli.Context, cfg serve.Config) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(serveMemory)
	}
	cfg.Log = zerolog.New(e.logWriter(globals(c).String("log-format"))).
		Level(levelOr(globals(c).String("log-level"), "info")).With().Timestamp().Str("from", "serve").Logger()
	// A file of keys that cannot be read lets nobody in: better said now than at the first login.
	if _, err := serve.ReadKeys(cfg.Keys); err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(c.Context, "tcp", c.String("listen"))
	if err != nil {
		return fmt.Errorf("listen at %q: %w", c.String("listen"), err)
	}
	server := serve.New(cfg)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, unix.SIGHUP)
	defer signal.Stop(hup)
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-hup:
				server.Recheck()
			case <-done:
				return
			}
		}
	}()
	cfg.Log.Info().Str("listen", l.Addr().String()).Str("host-key", ssh.FingerprintSHA256(cfg.HostKey.PublicKey())).Msg("serving")
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		cfg.Log.Warn().Err(err).Msg("systemd cannot be told how the server stands")
	}
	err = server.Run(c.Context, l)
	close(done)
	<-watched
	return err
}

// agentFor is the agent of a client, as sshd would start it: with the environment of its user, who has no say in it.
func agentFor(c *cli.Context, who serve.Client) (*exec.Cmd, error) {
	cmd, err := self(c, append([]string{"agent", "--login-key", who.Key}, who.Grant.Flags()...)...)
	if err != nil {
		return nil, err
	}
	// What this process was started with stays here: secrets, sockets of systemd, and what changes how a program runs.
	env := []string{"PATH=" + os.Getenv("PATH")}
	for _, name := range []string{"GOMEMLIMIT", "GOGC"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	if who.From != nil && who.To != nil {
		env = append(env, fmt.Sprintf("SSH_CONNECTION=%s %d %s %d", who.From.IP, who.From.Port, who.To.IP, who.To.Port))
	}
	cmd.Dir, cmd.Env = "/", env
	// A process group of its own keeps a Ctrl-C of the terminal from it: it ends by itself, once its input has.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd, runAs(cmd, who.Grant.User)
}

// runAs has a command run as a user of this host; "" leaves it as whoever runs this. Only root may name another one. The
// user's groups are all of those that a login would have, since they may be what lets it into the volume. An error means
// that nothing is to be run: never as anybody else.
func runAs(cmd *exec.Cmd, name string) error {
	if name == "" {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("the key's user: %w", err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("the groups of %s: %w", name, err)
	}
	credential := &syscall.Credential{}
	for _, text := range groups {
		id, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return fmt.Errorf("the groups of %s: %w", name, err)
		}
		credential.Groups = append(credential.Groups, uint32(id))
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return fmt.Errorf("the numbers of %s: %w", name, err)
	}
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	credential.Uid, credential.Gid = uint32(uid), uint32(gid)
	if os.Geteuid() == int(uid) {
		return nil // nothing to change, which an ordinary user may not even try
	}
	cmd.SysProcAttr.Credential = credential
	return nil
}
