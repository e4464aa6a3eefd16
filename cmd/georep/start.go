package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"georep/internal/service"
	"georep/monitor"
	"georep/status"
	"georep/volume"
)

const (
	// readyPatience is how long start waits for the session's first word. A large volume's first scan may take longer.
	readyPatience = time.Minute
	// stopPatience bounds the end of what a failed or interrupted start leaves.
	stopPatience = time.Minute
)

func (e *env) startCommand() *cli.Command {
	return &cli.Command{Name: "start", ArgsUsage: "[MASTER SLAVE]",
		Usage: "replicate until stopped; without arguments: every session that was started, as after a reboot",
		Flags: sessionFlags(append(dryFlags(), &cli.BoolFlag{Name: "foreground", Usage: "stay, and log to standard error"})...), Action: e.start}
}

// start registers what is missing, and starts the monitor. What it made is taken back where only the operator can
// help; where the trouble may pass, such as a slave that is down, the session stays and keeps trying.
func (e *env) start(c *cli.Context) error {
	if err := checkDry(c); err != nil {
		return err
	}
	if c.Args().Len() == 0 {
		return e.startAll(c)
	}
	t, err := parseTarget(c, 2)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return e.dryRun(c, t)
	}
	if err := notRunning(t); err != nil {
		return err
	}
	r, err := register(c, t)
	if err != nil {
		return err
	}
	if c.Bool("force") { // only now: once the slave is ours nobody has to force it any more
		if err := e.agreedToForce(c, r); err != nil {
			return r.undo(err)
		}
		if err := r.check(c.Context, c, e); err != nil {
			return r.undo(err)
		}
	}
	if err := r.setStarted(true); err != nil {
		return r.undo(err)
	}
	if c.Bool("foreground") {
		return e.foreground(c, r)
	}
	err = e.launch(c, r)
	if errors.Is(err, errRefused) {
		return r.withdraw(err)
	}
	return err
}

// notRunning refuses a second start before it changes anything.
func notRunning(t target) error {
	s, err := t.session()
	if err != nil {
		return nil
	}
	if pid, ok := status.Running(t.store.Files(s.Master, s.Slave).Pid); ok {
		return fmt.Errorf("session %s to %q: %w", s.Master, s.Slave, &status.RunningError{Pid: pid})
	}
	return nil
}

// setStarted saves that the operator wants the session to run, or no more: what startAll goes by after a reboot.
func (r *registration) setStarted(started bool) error {
	s, err := r.store.UpdateSession(r.session.Master, r.session.Slave, func(s *volume.Session) error {
		s.Started = started
		return nil
	})
	if err == nil {
		r.session = s
	}
	return err
}

// errRefused marks trouble that waiting does not heal.
var errRefused = errors.New("needs the operator")

// refusal reads as its reason alone.
type refusal struct{ reason string }

func (e *refusal) Error() string        { return e.reason }
func (e *refusal) Is(target error) bool { return target == errRefused }

// keepsTrying is trouble that may pass by itself.
type keepsTrying struct{ reason string }

func (e *keepsTrying) Error() string { return e.reason }

// launch starts the monitor and waits until it knows how it stands.
func (e *env) launch(c *cli.Context, r *registration) error {
	if err := e.spawn(c, r); err != nil {
		if errors.Is(err, status.ErrRunning) || c.Context.Err() != nil {
			return fmt.Errorf("session %s to %q: %w", r.session.Master, r.session.Slave, err)
		}
		if errors.Is(err, service.ErrAway) { // as while it is restarted: the registry tells it what to run
			return &keepsTrying{err.Error() + "; it starts the session when it runs again"}
		}
		return &refusal{reason: err.Error()}
	}
	ctx, cancel := context.WithTimeout(c.Context, readyPatience)
	defer cancel()
	st, err := monitor.WaitReady(ctx, r.store, r.session)
	switch {
	case errors.Is(err, context.DeadlineExceeded) && c.Context.Err() == nil:
		fmt.Fprintln(e.out, "still initializing, in the background: see georep status")
		return nil
	case err != nil:
		return err
	case st.WaitsFor() != "":
		fmt.Fprintf(e.out, "the session %s\n", st.WaitsFor())
	case st.State == status.Faulty && st.FinalReason:
		return &refusal{reason: st.Reason}
	case st.State == status.Faulty:
		return &keepsTrying{fmt.Sprintf("%s; it keeps trying in the background, until georep stop %s %s", st.Reason,
			r.session.Master, r.session.Slave)}
	}
	return nil
}

// spawn has the host's service start the monitor, whose processes belong to that then, or starts it here where there is none.
func (e *env) spawn(c *cli.Context, r *registration) error {
	if s := service.Dial(r.store); s != nil {
		return s.Start(c.Context, r.session)
	}
	cmd, err := self(c, "monitor", r.session.Master, r.session.Slave.String())
	if err != nil {
		return err
	}
	return monitor.Spawn(c.Context, cmd, r.files())
}

// withdraw stops a session that cannot work as it is, and forgets it if it is new.
func (r *registration) withdraw(why error) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := r.stop(ctx); err != nil && !errors.Is(err, monitor.ErrNotRunning) {
		return fmt.Errorf("%w; it is not stopped: %w", why, err)
	}
	return r.undo(why)
}

// startAll starts what was started when the host went down. One session's trouble does not keep the others from it.
func (e *env) startAll(c *cli.Context) error {
	if c.Bool("foreground") || c.NumFlags() > 0 {
		return usagef("start takes flags only with MASTER SLAVE")
	}
	s, err := store(c)
	if err != nil {
		return err
	}
	sessions, err := s.Sessions()
	errs := []error{err}
	for _, session := range sessions {
		r := &registration{store: s, session: session}
		if _, running := status.Running(r.files().Pid); !session.Started || running {
			continue
		}
		if err := e.launch(c, r); err != nil {
			errs = append(errs, fmt.Errorf("session %s to %q: %w", session.Master, session.Slave, err))
		}
	}
	return errors.Join(errs...)
}

// foreground is the monitor in this process. Its clean end counts as a stop: whoever started it here decides when it
// runs again.
func (e *env) foreground(c *cli.Context, r *registration) error {
	keepSmall()
	cfg, err := monitorConfig(c, r.store, r.session)
	if err != nil {
		return err
	}
	cfg.Console = e.err
	if w, ok := e.logWriter(globals(c).String("log-format")).(zerolog.ConsoleWriter); ok {
		cfg.Console = w
	}
	if err := monitor.Run(c.Context, cfg); err != nil {
		return err
	}
	return r.setStarted(false)
}

// self is a command line that runs this program with the same registry.
func self(c *cli.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	s, err := store(c)
	if err != nil {
		return nil, err
	}
	words := []string{"--state-dir", s.Dir()}
	if level := globals(c).String("log-level"); level != "" {
		words = append(words, "--log-level", level)
	}
	return exec.Command(exe, append(words, args...)...), nil
}
