package volume

import (
	"maps"
	"path/filepath"
	"time"
)

// Session is one master volume replicated to one slave. It is a value with one map: use Clone for a
// copy that is changed on its own, and UpdateSession to make a change last. What is in the registry
// is what the operator wants; how the session is, its status says.
type Session struct {
	Master  string            `json:"master"` // the volume's name
	Slave   Slave             `json:"slave"`
	UUID    string            `json:"uuid"`    // of the session, as xtime.UUID prints it
	Created time.Time         `json:"created"` // UTC
	Started bool              `json:"started"` // wanted: georep start was said last, not georep stop
	Paused  bool              `json:"paused"`  // wanted: georep pause was said last, not georep resume
	Config  map[string]string `json:"config"`  // what was set; the keys are ConfigKeys'
	Managed Managed           `json:"managed,omitzero"`
	SlaveID string            `json:"-"` // the name of the slave that it has filled; "" before the first connection
}

// Managed says which configuration file the settings come from, where georep apply made them so. Zero: they are the operator's.
type Managed struct {
	Config string `json:"config" toml:"config"` // the file that apply was given
	At     string `json:"at" toml:"at"`         // file:line, in it or in one that it includes, at the last apply
}

// text and parse make it fit for a file, and read that: names of files are of any bytes. Paths are
// quoted where they are no UTF-8.
func (m Managed) text() Managed { return Managed{toText(m.Config), toText(m.At)} }

// parse undoes text.
func (m Managed) parse() (out Managed, err error) {
	if out.Config, err = fromText(m.Config); err == nil {
		out.At, err = fromText(m.At)
	}
	return out, err
}

// Clone returns a copy that shares nothing with s.
func (s Session) Clone() Session {
	s.Config = maps.Clone(s.Config)
	return s
}

// Set sets a configuration key after checking it; errors are ErrSyntax. It changes the value in
// memory only. The value is kept as it was written, so what is shown is what was typed.
func (s *Session) Set(key, value string) error {
	k, err := findKey(key)
	if err != nil {
		return err
	}
	if err := k.check(&Options{}, value); err != nil {
		return err
	}
	if key == "ssh-port" && s.Slave.Port != 0 {
		return kindf(ErrSyntax, "ssh-port cannot be set: the slave %s names its port itself", s.Slave)
	}
	if s.Config == nil {
		s.Config = map[string]string{}
	}
	s.Config[k.Name] = value
	return nil
}

// Get returns a key's value, the default where it was never set, and whether it was.
func (s Session) Get(key string) (value string, set bool, err error) {
	k, err := findKey(key)
	if err != nil {
		return "", false, err
	}
	if v, ok := s.Config[k.Name]; ok {
		return v, true, nil
	}
	return k.Default, false, nil
}

// Reset gives a key its default again. It changes the value in memory only; an unknown key is ErrSyntax.
func (s *Session) Reset(key string) error {
	k, err := findKey(key)
	if err != nil {
		return err
	}
	delete(s.Config, k.Name)
	return nil
}

// Options returns the settings as values. The port of an ssh:// slave is among them. An error means
// that the session's file was edited by hand; it names the key. Keys that the program does not know
// any more are an error, as are values that it would not take now.
func (s Session) Options() (Options, error) {
	var o Options
	for _, k := range ConfigKeys() {
		value, _, err := s.Get(k.Name)
		if err != nil {
			return Options{}, err
		}
		if err := k.check(&o, value); err != nil {
			return Options{}, err
		}
	}
	switch {
	case s.Slave.Port != 0:
		o.SSHPort = s.Slave.Port
	case s.Slave.Serve && o.SSHPort == 0:
		o.SSHPort = ServePort
	}
	return o, nil
}

// CheckFilter reads the file of patterns that the session names, if it does. The error says what is wrong with which line.
func (s Session) CheckFilter() error {
	o, err := s.Options()
	if err == nil {
		_, err = o.Filter.Load()
	}
	return err
}

// Files names what belongs to a session. All are absolute. The directory lives from CreateSession to DeleteSession.
type Files struct {
	Dir     string
	Session string // the session itself
	Status  string // written by its monitor, read by anyone (package status)
	Pid     string // locked by its monitor as long as it lives
	Log     string // of monitor and worker; older ones beside it
	Key     string // a private key of the session's own, where georep authorize made one
}

// Files returns the names of the session of this master and slave; it makes nothing. The names
// follow from master and slave, and nothing else.
func (s *Store) Files(master string, slave Slave) Files {
	dir := filepath.Join(s.sessionsDir(), master+"_"+Escape(slave))
	return Files{
		Dir:     dir,
		Session: filepath.Join(dir, "session.toml"),
		Status:  filepath.Join(dir, "status"),
		Pid:     filepath.Join(dir, "pid"),
		Log:     filepath.Join(dir, "log"),
		Key:     filepath.Join(dir, "key"),
	}
}
