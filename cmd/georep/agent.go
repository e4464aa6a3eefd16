package main

import (
	"os"
	"os/exec"
	"strconv"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/agenthost"
	"georep/slave/agent"
	"georep/slave/policy"
)

func (e *env) agentCommand() *cli.Command {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "volume", Usage: "serve this volume and nothing else"},
		&cli.StringFlag{Name: "path", Usage: "serve this directory and nothing else"},
		&cli.StringFlag{Name: "login-key", Usage: "fingerprint of the key that logged in, as georep serve tells it"},
	}
	for _, k := range policy.Keys() {
		if k.Bool {
			flags = append(flags, &cli.BoolFlag{Name: k.Name, Usage: k.Doc})
		} else {
			flags = append(flags, &cli.StringFlag{Name: k.Name, Usage: k.Doc})
		}
	}
	return &cli.Command{Name: "agent", Hidden: true, Usage: "the slave's end, on standard input and output",
		Action: e.agent, Flags: flags}
}

// agentPolicy is what the command line allows. A login that is held to one place has by default no say over that place itself.
func agentPolicy(c *cli.Context) (p policy.Policy, err error) {
	if c.IsSet("volume") || c.IsSet("path") {
		p.KeepRootMode, p.NoForce = true, true
	}
	for _, k := range policy.Keys() {
		if !c.IsSet(k.Name) {
			continue
		}
		value := c.String(k.Name)
		if k.Bool {
			value = strconv.FormatBool(c.Bool(k.Name))
		}
		if err := p.Set(k.Name, value); err != nil {
			return p, usagef("--%v", err)
		}
	}
	return p, nil
}

// agent serves one client and ends with it. Standard output belongs to the protocol; whatever is said to people goes
// to standard error.
func (e *env) agent(c *cli.Context) error {
	if err := wants(c, 0, 0); err != nil {
		return err
	}
	if c.IsSet("volume") && c.IsSet("path") {
		return usagef("agent takes --volume or --path, not both")
	}
	carry()
	allowed, err := agentPolicy(c)
	if err != nil {
		return err
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	// The text goes to the SSH client, who shows it to people.
	log := zerolog.New(zerolog.ConsoleWriter{Out: e.err, NoColor: true}).
		Level(levelOr(globals(c).String("log-level"), "warn")).With().Timestamp().Logger()
	rw, err := agent.Stdio()
	if err != nil {
		return err
	}
	login := agenthost.CurrentLogin()
	if key := c.String("login-key"); key != "" {
		login.Key = key
	}
	o := &agenthost.Host{Store: s, Volume: c.String("volume"), Path: c.String("path"), Policy: allowed,
		Login: login, Version: version(), Log: log,
		Hook: func(text string) (*exec.Cmd, error) { return self(c, "slave-hook", text) }}
	host := &agent.Host{Version: version(), Open: o.Open, Join: o.Permits, Confine: o.Confine}
	err = host.Serve(c.Context, rw)
	if c.Context.Err() != nil {
		return nil // it was told to end
	}
	return err
}

func (e *env) agentHookCommand() *cli.Command {
	return &cli.Command{Name: "slave-hook", Hidden: true, Usage: "run the hook of a slave's host, under its agent", ArgsUsage: "TASK",
		Action: e.agentHook}
}

// agentHook ends when its agent has, and what that left is told.
func (e *env) agentHook(c *cli.Context) error {
	if err := wants(c, 1, 1); err != nil {
		return err
	}
	keepSmall()
	return agenthost.RunHook(c.Context, c.Args().First(), os.Stdin)
}
