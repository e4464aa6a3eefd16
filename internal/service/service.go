package service

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"georep/monitor"
	"georep/status"
	"georep/volume"
)

// service is one that runs. All but what reaches it by the channels belongs to the loop's
// goroutine. Other goroutines only wait for processes, or for requests, and say so through the
// channels.
type service struct {
	o        Options
	sessions map[string]*session // by key
	orders   chan order
	ended    chan ending
	said     string // to the manager, last
}

// session is one that is to run, or whose monitor runs. It exists as long as the registry has it,
// or its monitor runs.
type session struct {
	volume.Session
	cmd   *exec.Cmd // its monitor, where that was started here and has not ended
	since time.Time // when that was
	tries int       // how often it has ended early
	next  time.Time // not to be started before
	other bool      // somebody else's monitor runs
	asked bool      // a start was ordered while its monitor ran
	ends  bool      // its monitor was told to end
}

// ending says that a monitor has ended.
type ending struct {
	key string
	err error
}

// order is what a command wants: a session started.
type order struct {
	key  string
	done chan error
}

// key tells sessions apart, by what nobody can change in one.
func key(s *volume.Session) string { return s.Master + "\x00" + s.Slave.String() }

// Run is the service until ctx ends; then it ends the monitors and returns nil. ErrRunning, wrapped, where there is one
// already. One session's trouble never ends it.
func Run(ctx context.Context, o Options) error {
	if o.pace == (pace{}) {
		o.pace = defaultPace()
	}
	if o.Notify == nil {
		o.Notify = func(string) {}
	}
	if err := os.MkdirAll(o.Store.Dir(), 0o700); err != nil { // a host on which nothing is registered yet
		return fmt.Errorf("begin the service: %w", err)
	}
	patient, cancel := context.WithTimeout(ctx, o.pace.lock)
	lock, err := volume.WaitLock(patient, lockFile(o.Store), volume.Exclusive) // a command may look at it for an instant
	cancel()
	if err != nil && !errors.Is(err, volume.ErrLocked) {
		return fmt.Errorf("begin the service: %w", err)
	}
	if err != nil {
		return fmt.Errorf("%w for %s: %w", ErrRunning, o.Store.Dir(), err)
	}
	defer lock.Close()
	s := &service{o: o, sessions: map[string]*session{}, orders: make(chan order), ended: make(chan ending)}
	stop, err := s.listen()
	if err != nil {
		return fmt.Errorf("begin the service: %w", err)
	}
	s.loop(ctx)
	stop()
	return nil
}

// The registry is read at each event, so what a command has changed there counts at once.
func (s *service) loop(ctx context.Context) {
	s.read()
	s.o.Notify("READY=1")
	looks, tells := time.NewTicker(s.o.pace.look), time.NewTicker(s.o.pace.statePoll)
	defer looks.Stop()
	defer tells.Stop()
	alive := beat(s.o.Watchdog)
	for {
		s.tell()
		var due <-chan time.Time
		if wait, some := s.due(); some {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			s.o.Notify("STOPPING=1")
			s.end()
			return
		case o := <-s.orders:
			o.done <- s.obey(o)
		case e := <-s.ended:
			s.over(e)
		case <-looks.C:
			s.read()
		case <-due:
			s.read() // it may have been stopped meanwhile
		case <-tells.C:
		case <-alive:
			s.o.Notify("WATCHDOG=1")
		}
	}
}

// beat ticks often enough for a watchdog; never where there is none.
func beat(watchdog time.Duration) <-chan time.Time {
	if watchdog <= 0 {
		return nil
	}
	return time.Tick(watchdog / 3)
}

// read takes over what the registry says, starts what is to run and does not, and ends what runs and is not to: it may have been
// stopped, by a command that met no monitor, in the moment in which it was started.
func (s *service) read() {
	list, err := s.o.Store.Sessions()
	if err != nil { // those that can be read are there all the same
		s.o.Log.Error().Err(err).Msg("some sessions cannot be read")
	}
	known := map[string]bool{}
	for _, each := range list {
		k := key(&each)
		known[k] = true
		if s.sessions[k] == nil {
			s.sessions[k] = &session{}
		}
		s.sessions[k].Session = each
	}
	for k, each := range s.sessions {
		if !known[k] && err == nil {
			each.Started = false
			if each.cmd == nil {
				delete(s.sessions, k)
			}
		}
		if !each.Started && each.cmd != nil && !each.ends {
			each.ends = true
			_ = each.cmd.Process.Signal(unix.SIGTERM) // one that has ended is told of by ended
		}
	}
	s.startAll()
}

// due is how long it takes until a session is to be started.
func (s *service) due() (wait time.Duration, some bool) {
	for _, each := range s.sessions {
		if !each.Started || each.cmd != nil || each.other {
			continue
		}
		if left := max(time.Until(each.next), 0); !some || left < wait {
			wait, some = left, true
		}
	}
	return wait, some
}

// startAll starts what is due. A goroutine waits for the process and hands its end to the loop,
// which takes it until the service has ended all.
func (s *service) startAll() {
	for _, each := range s.sessions {
		if !each.Started || each.cmd != nil || time.Now().Before(each.next) {
			continue
		}
		// Where somebody started it without the service, that is looked at now and then.
		if _, each.other = status.Running(s.files(each).Pid); each.other {
			continue
		}
		if err := s.start(each); err != nil {
			s.again(each)
			s.o.Log.Error().Str("session", each.name()).Err(err).Msg("the monitor does not start")
		}
	}
}

// files are those of the session in the state directory.
func (s *service) files(each *session) volume.Files { return s.o.Store.Files(each.Master, each.Slave) }

// name is what logs and the manager call it.
func (each *session) name() string { return each.Master + " " + each.Slave.String() }

// start starts a session's monitor.
func (s *service) start(each *session) error {
	cmd := s.o.Monitor(each.Session)
	if _, err := monitor.Begin(cmd, s.files(each)); err != nil {
		return err
	}
	each.cmd, each.since, each.ends = cmd, time.Now(), false
	s.o.Log.Info().Str("session", each.name()).Int("pid", cmd.Process.Pid).Msg("monitor started")
	k := key(&each.Session)
	go func() { s.ended <- ending{key: k, err: cmd.Wait()} }()
	return nil
}

// again puts the next start of a session off, further each time.
func (s *service) again(each *session) {
	wait := min(s.o.pace.first<<min(each.tries, 10), s.o.pace.most)
	each.tries, each.next = each.tries+1, time.Now().Add(wait)
}

// over takes note of a monitor's end. Where the operator has stopped the session, that is in the registry already.
func (s *service) over(e ending) {
	each := s.sessions[e.key]
	if time.Since(each.since) >= s.o.pace.steady {
		each.tries = 0
	}
	each.cmd = nil
	s.again(each)
	if each.asked {
		each.asked, each.tries, each.next = false, 0, time.Time{}
	}
	s.read()
	if now := s.sessions[e.key]; now != nil && now.Started {
		s.o.Log.Warn().Str("session", each.name()).Str("how", how(e.err)).Msg("the monitor ended, and is started again")
	}
}

// how is how a process ended, for the log.
func how(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// obey does what a command wants. An error is for the operator who gave the command.
func (s *service) obey(o order) error {
	s.read()
	each := s.sessions[o.key]
	switch {
	case each == nil || !each.Started:
		return errors.New("the session is not registered, or not to run")
	case each.cmd != nil:
		each.asked = true // it may be ending: whoever asks does not wait for another try
		return nil
	case each.other:
		pid, _ := status.Running(s.files(each).Pid)
		return &status.RunningError{Pid: pid}
	}
	each.tries, each.next = 0, time.Time{}
	return s.start(each)
}

// end ends all monitors that were started here, and with them their workers and markers. Those that
// do not end in time are killed; their workers end by themselves then.
func (s *service) end() {
	running := 0
	for _, each := range s.sessions {
		if each.cmd != nil {
			running++
			_ = each.cmd.Process.Signal(unix.SIGTERM) // one that has ended is told of by ended
		}
	}
	patience := time.After(s.o.pace.farewell)
	for running > 0 {
		select {
		case e := <-s.ended:
			running--
			s.sessions[e.key].cmd = nil
		case o := <-s.orders:
			o.done <- ErrAway
		case <-patience:
			for _, each := range s.sessions {
				if each.cmd != nil {
					s.o.Log.Error().Str("session", each.name()).Msg("the monitor does not end, and is killed")
					_ = each.cmd.Process.Kill()
				}
			}
			patience = nil
		}
	}
}

// tell tells the manager how the sessions stand, where that has changed.
func (s *service) tell() {
	count := map[status.State]int{}
	for _, each := range s.sessions {
		if !each.Started {
			continue
		}
		state := status.Stopped
		if each.cmd != nil {
			state = status.Initializing
			// What an earlier monitor has left is older.
			if st, err := status.Read(s.files(each).Status); err == nil && st.MonitorPid == each.cmd.Process.Pid {
				state = st.State
			}
		}
		count[state]++
	}
	total := 0
	for _, n := range count {
		total += n
	}
	text := fmt.Sprintf("STATUS=%d sessions", total)
	if total == 1 {
		text = "STATUS=1 session"
	}
	sep := ": "
	for _, state := range []status.State{status.Faulty, status.Active, status.Initializing, status.Paused, status.Stopped} {
		if count[state] > 0 {
			text += fmt.Sprintf("%s%d %s", sep, count[state], state)
			sep = ", "
		}
	}
	if text != s.said {
		s.said = text
		s.o.Notify(text)
	}
}
