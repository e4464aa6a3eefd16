package monitor

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"georep/internal/events"
	"georep/internal/hooks"
	"georep/internal/wallclock"
	"georep/status"
	"georep/volume"
)

const (
	writeAtMost  = 50 * time.Millisecond // the status file's shortest life
	writeAtLeast = 5 * time.Second       // and its longest
	usersWait    = 15 * time.Second      // for a marker that is ending, and keeps newcomers waiting meanwhile
	reloadSignal = unix.SIGUSR1
)

// Config says what to supervise.
type Config struct {
	// Store is the registry. The session is read from it when Run begins and at each reload; nothing is written to
	// it.
	Store  *volume.Store
	Master string // the volume's name
	Slave  volume.Slave
	// WorkerCommand makes the worker's command line. Run sets its files and process group. It is called for every
	// worker, so that each one reads the session's configuration anew.
	WorkerCommand func() *exec.Cmd
	// MarkerCommand makes the volume's marker's; nil for a session that needs none.
	MarkerCommand func() *exec.Cmd
	// Console, where not nil, gets each line of the session's log too (start --foreground).
	Console io.Writer

	// These are zero but in tests.
	pace  pace
	clock *wallclock.Watch
}

// Run supervises the session until ctx ends or the process gets SIGTERM, SIGINT or SIGHUP, and returns nil then: the
// worker has ended, and the status file says Stopped. On SIGUSR1 it reads the session again (see Reload). It returns a
// *status.RunningError when the session has a monitor, and other errors only before it has begun.
// Trouble of the worker, the marker or the slave never ends it: that is what it is for.
func Run(ctx context.Context, cfg Config) error {
	// Before the pid file says that this process may be signalled.
	ctx, cancel := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer cancel()
	again := make(chan os.Signal, 1)
	signal.Notify(again, reloadSignal)
	defer signal.Stop(again)

	// A session that cannot run is none that runs, not for a moment: Spawn goes by the pid file.
	if _, _, err := readSession(&cfg); err != nil {
		return fmt.Errorf("monitor of %s to %q: %w", cfg.Master, cfg.Slave, err)
	}
	// The pid file comes first: who has it may write the status file and the log.
	files := cfg.Store.Files(cfg.Master, cfg.Slave)
	pid, err := status.AcquirePid(files.Pid)
	if err != nil {
		return fmt.Errorf("monitor of %s to %q: %w", cfg.Master, cfg.Slave, err)
	}
	defer pid.Close()
	r, err := newRunner(ctx, cfg, files)
	if err != nil {
		return fmt.Errorf("monitor of %s to %q: %w", cfg.Master, cfg.Slave, err)
	}
	defer r.logFile.Close()
	defer r.scribe.journal.Close()
	r.run(ctx, again)
	return nil
}

// runner carries the machine's actions out. It lives as long as Run. One goroutine, the loop, has
// the machine and the worker. Tasks bring it events and touch nothing else.
type runner struct {
	cfg   Config
	files volume.Files
	// sink is the session's log and, where there is one, the console; log writes to it with this process's level.
	sink    io.Writer
	logFile io.Closer
	log     zerolog.Logger
	// The session as it was read last, to tell what a reload changes.
	session volume.Session
	// machine, worker, session and written belong to the loop's goroutine.
	machine *machine
	keeper  *keeper // nil without a marker
	worker  *worker // nil without one
	// events is what the tasks bring to the loop. It has no buffer: whoever hands an event over knows that it was
	// taken.
	events chan event
	tasks  sync.WaitGroup // the worker's and the keeper's listeners
	// written is when the status file was written last.
	written time.Time
	// chronicle and scribe are the loop's, too: what has happened, and the journal of that.
	chronicle *chronicle
	scribe    scribe
	// clock tells when the wall clock was set.
	clock *wallclock.Watch
	// checkpoints are the session's.
	checkpoints checkpoints
	// hooks are told of what is in the journal, as told says.
	hooks *hooks.Runner
	told  volume.Hook
}

// readSession is the session as it is saved, with its settings.
func readSession(cfg *Config) (s volume.Session, opts volume.Options, err error) {
	if s, err = cfg.Store.Session(cfg.Master, cfg.Slave); err == nil {
		opts, err = s.Options()
	}
	return s, opts, err
}

// newRunner reads the session and takes what it needs; the pid file is held by then.
func newRunner(ctx context.Context, cfg Config, files volume.Files) (*runner, error) {
	session, opts, err := readSession(&cfg)
	if err != nil {
		return nil, err
	}
	if cfg.pace == (pace{}) {
		cfg.pace = defaultPace()
	}
	r := &runner{cfg: cfg, files: files, session: session, events: make(chan event), clock: cfg.clock}
	if r.clock == nil {
		r.clock = wallclock.New()
	}
	r.sink, r.logFile = newLog(files.Log, cfg.Console)
	level, _ := zerolog.ParseLevel(opts.LogLevel) // checked by Options
	r.log = zerolog.New(status.JSONWriter{W: r.sink}).Level(level).With().Timestamp().Str("from", "monitor").Logger()
	r.machine = newMachine(firstStatus(session, files), cfg.pace, opts.RetryMax, rand.Float64)
	r.machine.clock.since = func(_, at time.Time) time.Duration { return r.clock.Since(at) }
	if err := r.useMarker(ctx, opts); err != nil {
		r.logFile.Close()
		return nil, err
	}
	r.keepJournal(opts)
	return r, nil
}

// keepJournal opens the journal of events, and goes on with the objective where an earlier monitor
// stood. Trouble with the journal keeps no session from running. An earlier monitor's events say
// what was told already.
func (r *runner) keepJournal(opts volume.Options) {
	old, err := status.Read(r.files.Status)
	if err != nil {
		old = status.Status{}
	}
	r.machine.objective = newObjective(opts.MaxLag, r.session.Created, &old)
	if s, ok := setBackBefore(&old, time.Now()); ok {
		r.feed(stepped{s})
	}
	r.scribe.log = r.log
	var past []events.Event
	if r.scribe.journal, past, err = events.Open(r.files.Dir, hooks.Floor(r.files.Dir)); err != nil {
		r.log.Error().Err(err).Msg("past events may be missing, and new ones cannot be recorded for now")
	}
	r.told = opts.Hook
	r.checkpoints = checkpoints{files: r.files, log: r.log}
	r.chronicle = newChronicle(&r.machine.st, past)
}

// note puts into the journal what has happened. It is called before the status is written, so
// whoever sees a new state finds the event of it.
func (r *runner) note(now time.Time) {
	st := r.machine.status(now)
	happened := r.chronicle.observe(&st, r.machine.facts())
	for i := range happened {
		logEvent(&r.log, &happened[i])
	}
	done := r.checkpoints.look(now, &st)
	for _, c := range done {
		happened = append(happened, r.chronicle.completed(c))
	}
	// Before it counts as complete: an event told twice is better than one that is lost.
	r.scribe.write(happened)
	r.checkpoints.save(now)
}

// logEvent puts an event into the session's log, but for those that come there by other ways.
func logEvent(log *zerolog.Logger, e *events.Event) {
	switch e.Kind {
	case events.QueueOverflow, events.ClockStepped, events.ObjectiveMissed, events.ObjectiveMet:
		log.Warn().Str("event", string(e.Kind)).Msg(e.Message)
	case events.Failure:
		log.Warn().Str("path", e.Path).Str("op", e.Op).Str("error", e.Error).Msg("an entry is held back")
	case events.FailureGone:
		log.Info().Str("path", e.Path).Msg("an entry is held back no more")
	}
}

// firstStatus keeps of an earlier monitor's what stays true.
func firstStatus(s volume.Session, files volume.Files) status.Status {
	st := status.New(s.Master, s.Slave.String())
	st.MonitorPid, st.StateSince = os.Getpid(), status.Time{Time: time.Now().Round(0)}
	if old, err := status.Read(files.Status); err == nil {
		st.LastSynced, st.Stime, st.Marker, st.HiddenAt = old.LastSynced, old.Stime, old.Marker, old.HiddenAt
		st.ClockStep = old.ClockStep
		if old.Checkpoint != "" {
			st.Checkpoint = old.Checkpoint
		}
	}
	return st
}

// useMarker takes the users' lock first of all: a marker that is about to end for want of users stays.
func (r *runner) useMarker(ctx context.Context, opts volume.Options) error {
	if r.cfg.MarkerCommand == nil {
		return nil
	}
	files, err := r.cfg.Store.MakeRuntime(r.cfg.Master)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, usersWait)
	defer cancel()
	users, err := volume.WaitLock(ctx, files.UsersLock, volume.Shared)
	if err != nil {
		return err
	}
	r.keeper = &keeper{
		files: files, command: r.cfg.MarkerCommand, retryMax: opts.RetryMax, random: rand.Float64, log: r.log, users: users,
	}
	return nil
}

// run is the monitor's life.
func (r *runner) run(ctx context.Context, again <-chan os.Signal) {
	keeping, stopKeeping := context.WithCancel(context.Background())
	defer stopKeeping()
	if r.keeper != nil {
		r.tasks.Go(func() { r.keeper.run(keeping, r.emitUntil(keeping)) })
	}
	r.log.Info().Int("pid", os.Getpid()).Msg("monitor started")
	r.startHooks()
	watchClock(keeping, &r.tasks, r.log, r.emitUntil(keeping))
	r.feed(begin{paused: r.session.Paused})
	r.loop(ctx, again)
	stopKeeping()
	r.hooks.Stop(r.scribe.journal.Last(), lastWords)
	r.tasks.Wait()
	if r.keeper != nil {
		r.keeper.release()
	}
	r.log.Info().Msg("monitor ended")
}

// emitUntil returns a function that hands an event to the loop, or drops it when ctx has ended.
func (r *runner) emitUntil(ctx context.Context) func(event) {
	return func(ev event) {
		select {
		case r.events <- ev:
		case <-ctx.Done():
		}
	}
}

// loop ends when the worker has, after a stop. It never blocks on the worker, the disk of the
// journal excepted.
func (r *runner) loop(ctx context.Context, again <-chan os.Signal) {
	done := ctx.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		for s, ok := r.clock.Next(); ok; s, ok = r.clock.Next() {
			r.feed(stepped{s})
		}
		now := time.Now()
		r.note(now)
		r.write(now)
		if r.machine.phase == over {
			return
		}
		timer.Reset(r.wait(now))
		select {
		case <-done:
			done = nil
			r.feed(stop{})
		case <-again:
			r.reload()
		case ev := <-r.events:
			if rep, ok := ev.(reported); ok && rep.Changed != nil {
				r.hooks.Changed(rep.Changed.All, rep.Changed.Paths, rep.Changed.Trees)
			}
			r.feed(ev)
		case <-timer.C:
			r.feed(wake{})
		}
	}
}

// wait is how long the loop may sleep: until the machine's next time or the status file is due.
// Zero means at once.
func (r *runner) wait(now time.Time) time.Duration {
	due := r.written.Add(writeAtLeast)
	if r.machine.dirty {
		due = r.written.Add(writeAtMost)
	}
	if next := r.machine.next(); !next.IsZero() && next.Before(due) {
		due = next
	}
	return max(0, due.Sub(now))
}

// write writes the status file when it is due, and always as the last thing.
func (r *runner) write(now time.Time) {
	age := now.Sub(r.written)
	if r.machine.phase != over && age < writeAtLeast && (!r.machine.dirty || age < writeAtMost) {
		return
	}
	r.written, r.machine.dirty = now, false
	if err := status.Write(r.files.Status, r.machine.status(now)); err != nil {
		r.log.Error().Err(err).Msg("the status is not written")
	}
}

// feed gives an event to the machine and does what it says; what comes of that is fed in turn.
func (r *runner) feed(ev event) {
	for ev != nil {
		state, reason := r.machine.st.State, r.machine.st.Reason
		actions := r.machine.handle(time.Now(), ev)
		if st := r.machine.st; st.State != state || st.Reason != reason {
			level := zerolog.InfoLevel
			if st.State == status.Faulty {
				level = zerolog.WarnLevel
			}
			r.log.WithLevel(level).Str("status", string(st.State)).Str("reason", st.Reason).Msg("status changed")
		}
		ev = nil
		for _, a := range actions {
			if next := r.do(a); next != nil {
				ev = next
			}
		}
	}
}

// do carries one action out and returns the event that comes of it, if any.
func (r *runner) do(a action) event {
	if a.do == spawn {
		return r.spawn()
	}
	if r.worker == nil {
		return nil
	}
	r.log.Debug().Str("do", string(a.do)).Str("verb", string(a.verb)).Msg("worker")
	switch a.do {
	case tell:
		r.worker.tell(a.verb)
	case term:
		r.worker.term()
	case kill:
		r.worker.kill()
	}
	return nil
}

// spawn starts a worker and the task that listens to it.
func (r *runner) spawn() event {
	w, err := startWorker(r.cfg.WorkerCommand(), &stderrLog{log: r.log, sink: r.sink, path: r.files.Log})
	if err != nil {
		r.worker = nil
		return spawnFailed{err: err}
	}
	r.worker = w
	// The loop goes on until the worker has ended, so its events always find a taker.
	r.tasks.Go(func() { w.listen(func(ev event) { r.events <- ev }) })
	r.log.Info().Int("pid", w.cmd.Process.Pid).Msg("worker started")
	return spawned{pid: w.cmd.Process.Pid}
}

// reload reads the session again: the operator paused, resumed or configured it.
func (r *runner) reload() {
	session, opts, err := readSession(&r.cfg)
	if err != nil {
		r.log.Error().Err(err).Msg("the session is not read again")
		return
	}
	restart := !maps.Equal(workersKeys(session.Config), workersKeys(r.session.Config))
	restart = restart || opts.Hook.WantsChanged() != r.told.WantsChanged()
	if !opts.Hook.Equal(&r.told) {
		r.told = opts.Hook
		r.hooks.Stop(0, 0)
		r.startHooks()
	}
	own := !restart && !maps.Equal(session.Config, r.session.Config)
	r.session = session
	r.feed(reload{paused: session.Paused, retryMax: opts.RetryMax, maxLag: opts.MaxLag, restart: restart, own: own})
}

// workersKeys are the settings without those that no worker reads.
func workersKeys(config map[string]string) map[string]string {
	config = maps.Clone(config)
	maps.DeleteFunc(config, func(key, _ string) bool { return volume.ForMonitor(key) })
	return config
}
