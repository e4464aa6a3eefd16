package volume

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"georep/internal/bandwidth"
	"georep/internal/filter"
	"georep/internal/size"
	"georep/internal/timetable"
)

// Options are a session's settings with the defaults filled in. It is made by Session.Options, and
// a plain value: a change in the registry shows in the next one. Settings whose zero value means
// "not set" say so; all others have a value that was checked.
type Options struct {
	LogLevel       string              // trace, debug, info, warn or error
	MaxDelete      int                 // percent of the tree that a crawl may purge without the operator's word
	FreeDeletes    int                 // entries that a crawl may purge whatever their share, unless MaxDelete is 0
	KeepDeleted    time.Duration       // how long the slave keeps what was parked; 0 until it is in step
	MarkerSource   string              // auto, fanotify, inotify or scan
	ScanInterval   time.Duration       // between the slow scans for what events never tell
	RetryMax       time.Duration       // longest pause between two tries
	QuietPeriod    time.Duration       // how long a file that keeps changing must be quiet before it is shipped; 0: at once
	MaxDelay       time.Duration       // but never later than this after its first change that was not shipped
	SSHPort        int                 // 0: the ssh configuration's
	Identity       string              // private key file; "": the ssh configuration's, and the ssh-agent's keys
	Trust          Trust               // what the slave's host is known by
	RemoteGeorep   string              // the program on the slave's host
	RemoteStateDir string              // "": its default there
	Agentless      bool                // nothing of ours runs on the slave's host: SFTP alone
	SyncJobs       int                 // most streams of a session over SSH, each a channel of one of its two connections
	Hints          bool                // take the marker's hints; off: compare at each change
	Quick          bool                // trust type, size and mtime when a slave is adopted
	BWLimit        bandwidth.Timetable // bytes a second that all streams to the slave together may send
	Windows        timetable.Windows   // when it ships; none: always
	Compression    string              // auto, off or always
	Filter         filter.Spec         // what is left out
	Hook           Hook                // who is told of its events
	MaxLag         time.Duration       // how far the slave may be behind; 0: nobody says
}

// Trust says what a slave's host is known by. A fingerprint leaves known_hosts files out of it: they are not read then,
// so a key that was accepted once by somebody else does not count. An unknown host is never taken, whatever stands here.
type Trust struct {
	KnownHosts string // a known_hosts file; "": the ssh configuration's
	HostKey    string // the fingerprint of the host's key, SHA256:...; "": as known_hosts says
}

// ConfigKey is one row of the table of settings. Its values are kept as text, as the operator wrote them; apply
// checks one and puts it into Options.
type ConfigKey struct {
	Name    string `json:"name"`
	Default string `json:"default"`
	Doc     string `json:"doc"` // one line; says the unit and the accepted values
	apply   func(*Options, string) error
}

// ConfigKeys returns the table, in the order in which it is shown. The slice is the caller's.
func ConfigKeys() []ConfigKey {
	return []ConfigKey{
		{"log-level", "info", "least level that is logged: trace, debug, info, warn or error",
			func(o *Options, v string) error { return logLevel(&o.LogLevel, v) }},
		{"max-delete", "50", "percent of the tree (0 to 100) that may be removed within a minute without georep approve; 0: nothing",
			func(o *Options, v string) error { return integer(&o.MaxDelete, v, 0, 100) }},
		{"free-deletes", "1000", "entries that may be removed whatever their share of the tree, unless max-delete is 0",
			func(o *Options, v string) error { return integer(&o.FreeDeletes, v, 0, math.MaxInt32) }},
		{"keep-deleted", "0s", "how long the slave keeps deleted entries, such as 36h or 7d; 0s: until it is in step",
			func(o *Options, v string) error { return duration(&o.KeepDeleted, v, 0) }},
		{"marker-source", "auto", "where changes are learnt from: fanotify, inotify, scan, or auto for the first that works",
			func(o *Options, v string) error {
				return oneOf(&o.MarkerSource, v, "auto", "fanotify", "inotify", "scan")
			}},
		{"scan-interval", "24h", "time between slow scans for changes that raise no event, at least 1m; 0s: none",
			func(o *Options, v string) error { return optionalDuration(&o.ScanInterval, v, time.Minute) }},
		{"hints", "on", "on: look only at the names that the marker says have changed; off: list their directories",
			func(o *Options, v string) error { return onOff(&o.Hints, v) }},
		{"retry-max", "60s", "longest pause between two tries, at least 1s",
			func(o *Options, v string) error { return duration(&o.RetryMax, v, time.Second) }},
		{"quiet-period", "1s", "how long a file that changes again and again must be quiet before it is shipped; 0s: always at once",
			func(o *Options, v string) error { return duration(&o.QuietPeriod, v, 0) }},
		{"max-delay", "5s", "longest time that such a file waits after its first change that was not shipped, at least 100ms",
			func(o *Options, v string) error { return duration(&o.MaxDelay, v, 100*time.Millisecond) }},
		{"ssh-port", "0", "port of sshd on the slave's host; 0: as the ssh configuration says, or 22",
			func(o *Options, v string) error { return integer(&o.SSHPort, v, 0, 65535) }},
		{"identity", "", "private key file; empty: the one that authorize made, else as the ssh configuration says, and the ssh-agent's keys",
			func(o *Options, v string) error { return text(&o.Identity, v) }},
		{"known-hosts", "", "known_hosts file; empty: as the ssh configuration says",
			func(o *Options, v string) error { return text(&o.Trust.KnownHosts, v) }},
		{"host-key", "", "fingerprint of the ed25519 key of the slave's host, SHA256:...; empty: as known_hosts says",
			func(o *Options, v string) error { return fingerprint(&o.Trust.HostKey, v) }},
		{"remote-georep", "georep", "the program on the slave's host: a path, or a name found in PATH there",
			func(o *Options, v string) error { return filled(&o.RemoteGeorep, v) }},
		{"remote-state-dir", "", "state directory on the slave's host; empty: the default there",
			func(o *Options, v string) error { return text(&o.RemoteStateDir, v) }},
		{"agentless", "false", "use nothing but SFTP on the slave's host, as with sftp://: true or false",
			func(o *Options, v string) error { return boolean(&o.Agentless, v) }},
		{"sync-jobs", "8", "SSH channels that a session may use (1 to 16), for bulk data; without meaning for file:///",
			func(o *Options, v string) error { return integer(&o.SyncJobs, v, 1, 16) }},
		{"quick", "false", "adopt the slave's existing files by type, size and mtime instead of contents: true or false",
			func(o *Options, v string) error { return boolean(&o.Quick, v) }},
		{"bwlimit", "0", "most bytes a second that are sent, such as 500K, 1.5M (powers of 1024) or 10MB; 0: no limit; or from when on: " +
			"08:00,2M 19:00,off, also with days: Mon-08:00,2M Fri-19:00,off",
			func(o *Options, v string) (err error) { o.BWLimit, err = bandwidth.ParseTimetable(v); return err }},
		{"windows", "", "when it ships, by this host's clock, such as 22:00-06:00, or with days: Mon-Fri 22:00-06:00, Sat,Sun 00:00-24:00; " +
			"else it marks and waits; empty: always",
			func(o *Options, v string) (err error) { o.Windows, err = timetable.ParseWindows(v); return err }},
		{"compression", "auto", "auto: when that gets the bytes out sooner; off: never; always: everything but tiny pieces",
			func(o *Options, v string) error { return oneOf(&o.Compression, v, "auto", "off", "always") }},
		{"max-lag", "0s", "the objective: how far the slave may be behind before status and events say that it is missed, such as 5m, " +
			"at least 1s; 0s: none",
			func(o *Options, v string) error { return optionalDuration(&o.MaxLag, v, time.Second) }},
		{"hook-command", "", "program, by its absolute path, with arguments, that is given each event as JSON on its standard input; no shell: blanks " +
			"divide, quotes and backslashes keep them",
			func(o *Options, v string) error { return command(&o.Hook.Command, v) }},
		{"hook-url", "", "http:// or https:// address to which each event is posted as JSON",
			func(o *Options, v string) error { return hookURL(&o.Hook.URL, v) }},
		{"hook-key-file", "", "file of the key that signs what is posted (HMAC-SHA256); nobody but its owner may read it",
			func(o *Options, v string) error { return text(&o.Hook.KeyFile, v) }},
		{"hook-events", "", "kinds of events that hooks are told of, such as state,failure,objective-missed; empty: all",
			func(o *Options, v string) error { return hookKinds(&o.Hook.Kinds, v) }},
		{"hook-changed", "false", "tell hooks also which paths have become durable on the slave: true or false",
			func(o *Options, v string) error { return boolean(&o.Hook.Changed, v) }},
		{"hook-changed-pattern", "", "patterns of the paths that are told, one a line, under gitignore's rules; empty: all",
			func(o *Options, v string) error { return patterns(&o.Hook.Pattern, v) }},
		{"exclude", "", "patterns of names to leave out, one a line, by gitignore's rules; a later line wins",
			func(o *Options, v string) error { return patterns(&o.Filter.Exclude, v) }},
		{"include", "", "patterns of names to include although exclude or exclude-from leaves them out, one a line",
			func(o *Options, v string) error { return patterns(&o.Filter.Include, v) }},
		{"exclude-from", "", "file of such patterns, which come before those of exclude; read when the session starts or is reloaded",
			func(o *Options, v string) error { return text(&o.Filter.From, v) }},
		{"exclude-larger-than", "0", "leave out files of more bytes, such as 500M, 1.5G (powers of 1024) or 10GB; 0: whatever their size",
			func(o *Options, v string) (err error) { o.Filter.Larger, err = size.Parse(v); return err }},
		{"exclude-caches", "false", "leave out everything beside a CACHEDIR.TAG (bford.info/cachedir): true or false",
			func(o *Options, v string) error { return boolean(&o.Filter.Caches, v) }},
		{"delete-excluded", "false", "remove excluded entries from the slave instead of leaving them alone: true or false",
			func(o *Options, v string) error { return boolean(&o.Filter.Deletes, v) }},
	}
}

// ForMonitor tells whether a key is for the monitor: a worker need not be restarted for it, unless
// Hook.WantsChanged changes.
func ForMonitor(key string) bool {
	return key == "max-lag" || strings.HasPrefix(key, "hook-")
}

// IsList tells whether a key's value is a list: of patterns, one a line.
func IsList(key string) bool {
	return key == "exclude" || key == "include" || key == "hook-changed-pattern"
}

// IsFile tells whether a key's value is the name of a file on this host.
func IsFile(key string) bool {
	return key == "identity" || key == "known-hosts" || key == "exclude-from" || key == "hook-key-file"
}

// oldNames are names that keys had in earlier versions. They are taken wherever a key is, and never shown.
func oldNames() map[string]string { return map[string]string{"settle": "quiet-period"} }

// CurrentName returns the name that a key has now. A name that no key ever had comes back as it is.
func CurrentName(key string) string {
	if now, ok := oldNames()[key]; ok {
		return now
	}
	return key
}

// OldNames returns the names that a key had in earlier versions. The slice is the caller's.
func OldNames(key string) (old []string) {
	for was, now := range oldNames() {
		if now == key {
			old = append(old, was)
		}
	}
	slices.Sort(old)
	return old
}

// findKey finds a key by its name of now or of an earlier version. Its error names all keys.
func findKey(name string) (ConfigKey, error) {
	keys := ConfigKeys()
	i := slices.IndexFunc(keys, func(k ConfigKey) bool { return k.Name == CurrentName(name) })
	if i >= 0 {
		return keys[i], nil
	}
	var names []string
	for _, k := range keys {
		names = append(names, k.Name)
	}
	return ConfigKey{}, kindf(ErrSyntax, "no configuration key %q: the keys are %s", name, strings.Join(names, ", "))
}

// check parses value into o; its error tells the operator what would be right. It is the only place
// in which a value is parsed, so files, flags and commands accept the same.
func (k ConfigKey) check(o *Options, value string) error {
	if err := k.apply(o, value); err != nil {
		return kindf(ErrSyntax, "%s cannot be %q: %v (%s)", k.Name, value, err, k.Doc)
	}
	return nil
}

// These parse one kind of value each into to; their errors say what the value is not, and check
// adds what it may be. An error leaves to as it was, here and below.
func logLevel(to *string, v string) error {
	return oneOf(to, v, "trace", "debug", "info", "warn", "error")
}

func oneOf(to *string, v string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("not one of its values")
	}
	*to = v
	return nil
}

// integer lets a percent sign pass, as people write 50%.
func integer(to *int, v string, low, high int) error {
	n, err := strconv.Atoi(strings.TrimSuffix(v, "%"))
	if err != nil || n < low || n > high {
		return fmt.Errorf("not a number from %d to %d", low, high)
	}
	*to = n
	return nil
}

// boolean takes what strconv.ParseBool takes.
func boolean(to *bool, v string) (err error) {
	if *to, err = strconv.ParseBool(v); err != nil {
		return fmt.Errorf("neither true nor false")
	}
	return nil
}

// onOff is for keys that read better with on and off.
func onOff(to *bool, v string) error {
	if v != "on" && v != "off" {
		return fmt.Errorf("neither on nor off")
	}
	*to = v == "on"
	return nil
}

// fingerprint takes one as ssh-keygen -l prints it: SHA256 in base64, without padding.
func fingerprint(to *string, v string) error {
	if v != "" {
		sum, ok := strings.CutPrefix(v, "SHA256:")
		raw, err := base64.RawStdEncoding.DecodeString(sum)
		if !ok || err != nil || len(raw) != sha256.Size {
			return fmt.Errorf("not a fingerprint, SHA256: and 43 characters")
		}
	}
	*to = v
	return nil
}

// text is any string without a NUL byte, which no file name has.
func text(to *string, v string) error {
	if strings.ContainsRune(v, 0) {
		return fmt.Errorf("a NUL byte is in it")
	}
	*to = v
	return nil
}

// patterns is text of lines under gitignore's rules.
func patterns(to *string, v string) error {
	if err := (&filter.Spec{Exclude: v}).Check(); err != nil {
		return err
	}
	return text(to, v)
}

// filled is text that must not be empty.
func filled(to *string, v string) error {
	if v == "" {
		return fmt.Errorf("it is empty")
	}
	return text(to, v)
}

// duration also knows days, as 7d, and a bare number of seconds.
func duration(to *time.Duration, v string, least time.Duration) error {
	d, err := time.ParseDuration(v)
	// At most 65,535 days, which a Duration holds.
	if n, ok := strings.CutSuffix(v, "d"); ok && err != nil {
		var days uint64
		days, err = strconv.ParseUint(n, 10, 16)
		d = time.Duration(days) * 24 * time.Hour
	} else if secs, numErr := strconv.ParseUint(v, 10, 31); numErr == nil {
		d, err = time.Duration(secs)*time.Second, nil
	}
	switch {
	case err != nil:
		return fmt.Errorf("not a duration such as 90s, 5m, 36h or 7d")
	case d < least:
		return fmt.Errorf("less than %s", least)
	}
	*to = d
	return nil
}

// optionalDuration lets 0 stand for "never" beside durations of at least least.
func optionalDuration(to *time.Duration, v string, least time.Duration) error {
	if err := duration(to, v, 0); err != nil {
		return err
	}
	if *to == 0 {
		return nil
	}
	return duration(to, v, least)
}
