// Package policy is what a slave's own host allows a master, whatever the master asks (invariant 18). The host's
// administrator sets it for a volume, and more narrowly for a key by the flags of the forced command. It has values, their
// names and how two of them combine; whoever carries operations out asks it. It does no I/O.
package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"georep/internal/filter"
	"georep/internal/size"
	"georep/internal/words"
	"georep/marker/xtime"
)

// Policy is a plain value. The zero Policy allows all. It is copied freely; Owner is read only. How
// each field is enforced stands with whoever does: slave/disk and internal/agenthost.
type Policy struct {
	NoSetuid     bool          // no set-id bits on files, and no file capabilities
	NoDevices    bool          // no character or block devices
	KeepRootMode bool          // owner, mode and ACLs of the slave's root are the slave's own
	NoForce      bool          // nobody takes the slave over with --force
	ReadOnly     bool          // verified, and nothing else
	AppendOnly   bool          // what was removed stays parked for ever
	KeepDeleted  time.Duration // what was removed stays parked at least so long
	FakeOwner    bool          // owners and all else that the login cannot give are kept in xattrs
	Owner        *Owner        // of everything; nil: as on the master
	MaxBytes     int64         // that the slave may hold; 0: no limit
	MaxEntries   int64         // the same
	Master       string        // First, a uuid, or "" for any
	Hook         string        // the command that hears what has become durable, as words.Command takes it; "": none
	HookPattern  string        // of the paths that it hears; "": all
}

// Owner is a numeric owner.
type Owner struct {
	UID, GID uint32
}

// First is the value of Master that binds a login to the first master that uses it. It is kept in
// the registry of the slave's host (volume.Store.Bind).
const First = "first"

// Key is a row of the table of policies. Values are text, as the administrator writes them. Set and
// get use the same text, so what is shown can be typed.
type Key struct {
	Name    string
	Default string
	Doc     string // one line; says the accepted values
	Bool    bool   // on or off
	List    bool   // lines
	set     func(*Policy, string) error
	get     func(*Policy) string
}

// Keys returns the table, in the order in which it is shown. The slice is the caller's.
func Keys() []Key {
	return []Key{
		flag("no-setuid", "set no set-id bits on files, and no file capabilities", func(p *Policy) *bool { return &p.NoSetuid }),
		flag("no-devices", "make no character or block devices", func(p *Policy) *bool { return &p.NoDevices }),
		flag("keep-root-mode", "leave owner, mode and ACLs of the slave's root alone", func(p *Policy) *bool { return &p.KeepRootMode }),
		flag("no-force", "let nobody take the slave over with --force", func(p *Policy) *bool { return &p.NoForce }),
		flag("read-only", "let masters verify, and nothing else", func(p *Policy) *bool { return &p.ReadOnly }),
		flag("append-only", "keep removed entries for ever", func(p *Policy) *bool { return &p.AppendOnly }),
		flag("fake-owner", "keep owners, devices, set-id bits, ACLs and capabilities in xattrs, and give nobody any of them", func(p *Policy) *bool { return &p.FakeOwner }),
		{Name: "keep-deleted", Default: "0s", Doc: "keep removed entries for at least this long, such as 36h or 7d",
			set: func(p *Policy, v string) (err error) { p.KeepDeleted, err = duration(v); return err },
			get: func(p *Policy) string { return p.KeepDeleted.String() }},
		{Name: "max-bytes", Default: "0", Doc: "let the slave hold no more bytes, such as 500M, 2T (powers of 1024) or 10GB (1000); 0: no limit",
			set: func(p *Policy, v string) (err error) { p.MaxBytes, err = size.Parse(v); return err },
			get: func(p *Policy) string { return SizeText(p.MaxBytes) }},
		{Name: "max-entries", Default: "0", Doc: "let the slave hold no more files, directories and other entries; 0: no limit",
			set: func(p *Policy, v string) (err error) { p.MaxEntries, err = count(v); return err },
			get: func(p *Policy) string { return strconv.FormatInt(p.MaxEntries, 10) }},
		{Name: "owner", Doc: "give everything to this owner, UID:GID; empty: as on the master",
			set: func(p *Policy, v string) (err error) { p.Owner, err = owner(v); return err },
			get: func(p *Policy) string { return p.Owner.String() }},
		{Name: "master", Doc: "serve only the master volume of this uuid, or the first one that asks, first; empty: any",
			set: func(p *Policy, v string) error { return master(&p.Master, v) },
			get: func(p *Policy) string { return p.Master }},
		{Name: "hook-command", Doc: "program, by its absolute path, with arguments, that is told of paths that have become durable; empty: none",
			set: func(p *Policy, v string) error { return hook(&p.Hook, v) },
			get: func(p *Policy) string { return p.Hook }},
		{Name: "hook-changed-pattern", Doc: "paths that it is told of, by patterns as in .gitignore, one a line; empty: all", List: true,
			set: func(p *Policy, v string) error { return pattern(&p.HookPattern, v) },
			get: func(p *Policy) string { return p.HookPattern }},
	}
}

// flag makes the row of a value that is on or off; at gives its place in a policy.
func flag(name, doc string, at func(*Policy) *bool) Key {
	return Key{Name: name, Default: "off", Doc: doc + ": on or off", Bool: true,
		set: func(p *Policy, v string) error { return onOff(at(p), v) },
		get: func(p *Policy) string { return map[bool]string{true: "on", false: "off"}[*at(p)] }}
}

// Set changes one value. Its error names the key, the value and what would be right. After an error
// the value is as it was.
func (p *Policy) Set(name, value string) error {
	k, err := find(name)
	if err != nil {
		return err
	}
	if err := k.set(p, value); err != nil {
		return fmt.Errorf("%s cannot be %q: %w (%s)", name, value, err, k.Doc)
	}
	return nil
}

// Get gives one value as text. What it gives, Set takes.
func (p *Policy) Get(name string) (string, error) {
	k, err := find(name)
	if err != nil {
		return "", err
	}
	return k.get(p), nil
}

// Parse makes a policy of values by name. The error is that of one of the values; which one, where
// several are wrong, is not defined.
func Parse(values map[string]string) (p Policy, err error) {
	for name, value := range values {
		if err := p.Set(name, value); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Narrow gives what both allow. It is associative, and the order matters only for Hook and Owner,
// where p goes first: the key's own policy, and then the volume's.
func (p Policy) Narrow(q Policy) Policy {
	p.NoSetuid = p.NoSetuid || q.NoSetuid
	p.NoDevices = p.NoDevices || q.NoDevices
	p.KeepRootMode = p.KeepRootMode || q.KeepRootMode
	p.NoForce = p.NoForce || q.NoForce
	p.ReadOnly = p.ReadOnly || q.ReadOnly
	p.AppendOnly = p.AppendOnly || q.AppendOnly
	p.FakeOwner = p.FakeOwner || q.FakeOwner
	p.KeepDeleted = max(p.KeepDeleted, q.KeepDeleted)
	p.MaxBytes, p.MaxEntries = lesser(p.MaxBytes, q.MaxBytes), lesser(p.MaxEntries, q.MaxEntries)
	if p.Owner == nil {
		p.Owner = q.Owner
	}
	if p.Hook == "" && (q.Hook != "" || p.HookPattern == "") { // one's own counts first, with its pattern
		p.Hook, p.HookPattern = q.Hook, q.HookPattern
	}
	switch {
	case p.Master == "" || p.Master == First && q.Master != "":
		p.Master = q.Master
	case q.Master != "" && q.Master != First && q.Master != p.Master:
		p.Master = nobody
	}
	return p
}

// lesser is the lower of two limits, of which 0 is none. Zero is no limit, and so larger than any.
func lesser(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// nobody is a uuid that no volume has: two different masters are asked for. A login that is bound
// to it serves no master at all, which is what two contradictory rules ask for.
const nobody = "00000000-0000-0000-0000-000000000000"

// find gives the row of that name. The error lists the names that there are.
func find(name string) (Key, error) {
	keys := Keys()
	if i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name }); i >= 0 {
		return keys[i], nil
	}
	var names []string
	for _, k := range keys {
		names = append(names, k.Name)
	}
	return Key{}, fmt.Errorf("no policy %q: the keys are %s", name, strings.Join(names, ", "))
}

// These parse one kind of value each; Set adds what it may be. "true" and "false" are accepted, and
// shown as on and off.
func onOff(to *bool, v string) error {
	switch v {
	case "on", "true":
		*to = true
	case "off", "false":
		*to = false
	default:
		return fmt.Errorf("neither on nor off")
	}
	return nil
}

// duration also knows days, as 7d. Fractions of a day are written in hours.
func duration(v string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(v, "d"); ok {
		days, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, fmt.Errorf("not a number of days")
		}
		return time.Duration(days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("not a duration such as 5m, 36h or 7d")
	}
	return d, nil
}

// owner reads UID:GID; names are not looked up, since those of the two hosts may differ.
func owner(v string) (*Owner, error) {
	if v == "" {
		return nil, nil
	}
	uid, gid, ok := strings.Cut(v, ":")
	// The largest number means "leave it as it is" to the kernel.
	const largest = 1<<32 - 2
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if !ok || err1 != nil || err2 != nil || u > largest || g > largest {
		return nil, fmt.Errorf("not two numbers such as 1000:1000")
	}
	return &Owner{UID: uint32(u), GID: uint32(g)}, nil
}

// String is how Set takes it; "" for none.
func (o *Owner) String() string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", o.UID, o.GID)
}

// hook checks that it can be run: the program is not looked for.
func hook(to *string, v string) error {
	_, err := words.Command(v)
	if err == nil {
		*to = v
	}
	return err
}

// pattern checks the lines, and keeps them as they were written.
func pattern(to *string, v string) error {
	spec := filter.Spec{Exclude: v}
	_, err := spec.Load()
	if err == nil {
		*to = v
	}
	return err
}

// master reads a uuid, and writes it the usual way, so that two spellings are one.
func master(to *string, v string) error {
	if v != "" && v != First {
		u, err := xtime.ParseUUID(v)
		if err != nil {
			return fmt.Errorf("neither a uuid nor %s", First)
		}
		v = u.String()
	}
	*to = v
	return nil
}
