package wallclock

import (
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// Alarm says at once when the clock was set, by whatever little. The kernel tells that of a timer.
type Alarm struct{ file *os.File }

// NewAlarm sets one up.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("learn at once when the clock is set: %w", err)
	}
	a := &Alarm{os.NewFile(uintptr(fd), "timer")}
	if err := a.set(fd); err != nil {
		_ = a.file.Close()
		return nil, err
	}
	return a, nil
}

// set arms the timer for a time that never comes.
func (a *Alarm) set(fd int) error {
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil); err != nil {
		return fmt.Errorf("learn at once when the clock is set: %w", err)
	}
	return nil
}

// Wait returns when the clock was set since the last call. It fails after Close.
func (a *Alarm) Wait() error {
	buf := make([]byte, 8)
	for {
		_, err := a.file.Read(buf)
		switch {
		case errors.Is(err, unix.ECANCELED):
			return nil
		case err != nil:
			return err
		}
	}
}

// Close ends a call of Wait.
func (a *Alarm) Close() error { return a.file.Close() }
