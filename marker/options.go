package marker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/beneath"
	"georep/marker/xtime"
)

// What a caller decides on.
var (
	// ErrRunning means that another marker of the volume lives.
	ErrRunning = errors.New("a marker of this volume is running")
	// ErrNotMaster means that the root is not, or is no longer, the directory that the volume was made of.
	ErrNotMaster = errors.New("the root is not this volume's directory")
	// ErrNotRunning means that no marker of the volume lives.
	ErrNotRunning = errors.New("no marker of this volume is running")
)

// Values of Options.Source. Auto takes the first that works: fanotify, inotify, scan.
const (
	SourceAuto     = "auto"
	SourceFanotify = "fanotify"
	SourceInotify  = "inotify"
	SourceScan     = "scan"
)

// Sources are the values of Options.Source. The slice is the caller's.
func Sources() []string { return []string{SourceAuto, SourceFanotify, SourceInotify, SourceScan} }

// Options describe one volume to its marker.
type Options struct {
	Root      string           // the directory of the volume
	UUID      xtime.UUID       // the volume's
	Namespace xtime.Namespace  // where the marks go
	Dir       string           // the volume's runtime directory; made when it is not there
	Identity  beneath.Identity // what the root must be; zero: what it is at the start

	// VolumeMark is the recorded volume mark; 0 takes one and gives it to SaveVolumeMark. RaiseMark takes a new one in
	// any case, which makes every crawl compare everything. The marker raises it by itself when it cannot know what
	// changed while it did not run. SaveVolumeMark has to be durable when it returns.
	VolumeMark     xtime.Time
	RaiseMark      bool
	SaveVolumeMark func(xtime.Time) error

	Source       string        // SourceAuto when empty
	ScanInterval time.Duration // between slow scans for what events never tell; 0 is 6 h
	// MaxDelay is within what time a write that raises no event is marked, while the file stays open; 0 is 5 s.
	MaxDelay time.Duration
	ScanPoll time.Duration // pause between two scans where there are no events; 0 is 3 s

	Logger   zerolog.Logger
	Confined string // what confines this process, for its status
	// ExitWhenUnused ends Run, without an error, once nobody holds a shared flock on Dir/users.lock; not in the first
	// seconds, so that whoever started the marker can take it.
	ExitWhenUnused bool

	// remote, which a test may set, says that others change the file system, whatever its kind.
	remote bool
	// hook, where a test set it, is asked before each system call on the tree and on the marker's files.
	hook func(op, name string) error
}

const (
	defaultScanInterval = 6 * time.Hour
	defaultScanPoll     = 3 * time.Second
	defaultMaxDelay     = 5 * time.Second
)

// checked returns o with its defaults.
func (o Options) checked() (Options, error) {
	if o.ScanInterval == 0 {
		o.ScanInterval = defaultScanInterval
	}
	if o.ScanPoll == 0 {
		o.ScanPoll = defaultScanPoll
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = defaultMaxDelay
	}
	if o.Source == "" {
		o.Source = SourceAuto
	}
	if o.SaveVolumeMark == nil {
		o.SaveVolumeMark = func(xtime.Time) error { return nil }
	}
	switch {
	case o.Root == "" || o.Dir == "" || o.UUID.IsZero():
		return o, errors.New("marker options: root, runtime directory and uuid are all needed")
	case !slices.Contains(Sources(), o.Source):
		return o, fmt.Errorf("marker source %q: want one of %s", o.Source, strings.Join(Sources(), ", "))
	}
	_, err := xtime.ParseNamespace(string(o.Namespace))
	return o, err
}
