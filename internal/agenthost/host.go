package agenthost

import (
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/rs/zerolog"

	"georep/slave"
	"georep/slave/agent"
	"georep/slave/disk"
	"georep/slave/policy"
	"georep/volume"
)

// Host opens slaves for one login. Its methods may be called from many goroutines.
type Host struct {
	// Store is the registry of this host, where the slave's volumes are.
	Store *volume.Store
	// Volume and Path, where one is set, hold the login to that and nothing else.
	Volume, Path string
	// Policy is that of the login; the volume's own narrows it further.
	Policy  policy.Policy
	Login   Login
	Version string
	Log     zerolog.Logger
	// Hook makes the command of a process that calls RunHook with that text. Where it is nil no policy's hook is run.
	Hook func(text string) (*exec.Cmd, error)

	hookLived, hookAgain time.Duration // livedLong and diedEarly but in tests
}

// Permits refuses what this login may not have, to a session and to a stream that joins one. It
// looks only at names, before anything is opened.
func (o *Host) Permits(h agent.Hello) error {
	if o.Volume != "" && h.Volume != o.Volume || o.Path != "" && h.Path != o.Path {
		return fmt.Errorf("%w: this login may use only %q, and asks for %q", slave.ErrNoVolume, o.Volume+o.Path,
			h.Volume+h.Path)
	}
	return nil
}

// Open gives the client its slave: open for good, with the slave's lock, or for inspection only. An error goes to the
// client, which shows it to the operator there: it says what to do on the slave's host.
func (o *Host) Open(h agent.Hello) (slave.Reader, error) {
	log := o.audit(&h)
	event := Event{Slave: h.Volume + h.Path, Master: h.Master.String(), Session: h.Session.String(), Login: o.Login.String(),
		From: o.Login.From, Force: h.Force}
	tree, err := o.open(h, &recorder{audit: log, event: event})
	if err != nil {
		event.Event, event.Reason = Refused, err.Error()
		log.write(event)
		log.close()
	}
	return tree, err
}

// auditLog is where the log of a volume is, or that of all paths.
func (o *Host) auditLog(h *agent.Hello) string {
	if h.Volume != "" {
		if _, err := o.Store.Volume(h.Volume); err == nil { // an unknown name must not make a directory
			return o.Store.Runtime(h.Volume).AgentLog
		}
	}
	return o.Store.AgentLog()
}

// audit opens the log of a volume, or that of all paths.
func (o *Host) audit(h *agent.Hello) *audit {
	return newAudit(o.auditLog(h), func(err error) { o.Log.Warn().Err(err).Msg("the audit log cannot be written") })
}

// Refusals are errors with the slave package's identity, so the master knows whether trying again
// can help.
func (o *Host) open(h agent.Hello, r *recorder) (slave.Reader, error) {
	if err := o.Permits(h); err != nil {
		return nil, err
	}
	options := disk.Options{Path: h.Path, Master: h.Master, Session: h.Session, Proof: h.Proof, Force: h.Force,
		Create: h.Create, DryRun: h.DryRun, Logger: o.Log, Version: o.Version}
	p := o.Policy
	if h.Volume != "" {
		v, err := o.volume(h.Volume)
		if err != nil {
			return nil, err
		}
		// A registered directory that is missing was unmounted or removed; an empty one in its place would take all again.
		options.Path, options.Create = v.Path, false
		own, err := policy.Parse(v.Policy)
		if err != nil {
			return nil, fmt.Errorf("%w: the policy of %s is damaged: %w; see georep volume set on the slave's host", slave.ErrUnfit, v.Name, err)
		}
		p = own.Narrow(p)
	}
	if err := o.allows(&p, &h); err != nil {
		return nil, err
	}
	options.Policy = p
	options.PolicyNow = func() policy.Policy { return o.policyNow(h.Volume, p) }
	options.Refused = r.full
	if h.Inspect {
		inspector, err := disk.OpenInspector(options)
		if err != nil {
			return nil, err
		}
		r.note(Looks)
		return &watched{Inspector: inspector, record: r}, nil
	}
	tree, err := disk.Open(options)
	if err != nil {
		return nil, err // not tree, which would be no nil interface
	}
	r.note(Began)
	g := &guarded{Tree: tree, policy: p, record: r}
	if p.Hook != "" && o.Hook != nil {
		if g.hook, err = startHook(o, &p, r); err != nil {
			r.hookFails(err)
		}
	}
	return g, nil
}

// policyNow is the policy of a session as it is by now; was where that cannot be told. It is asked
// when a limit is reached, so raising one needs no new session.
func (o *Host) policyNow(name string, was policy.Policy) policy.Policy {
	if name == "" {
		return was
	}
	v, err := o.Store.Volume(name)
	if err != nil {
		return was
	}
	own, err := policy.Parse(v.Policy)
	if err != nil {
		return was
	}
	return own.Narrow(o.Policy)
}

// volume finds a registered one, or says how to register it.
func (o *Host) volume(name string) (volume.Volume, error) {
	v, err := o.Store.Volume(name)
	if errors.Is(err, volume.ErrNoVolume) {
		return v, fmt.Errorf("%w: %q is not registered on the slave's host; run georep volume create %s PATH there",
			slave.ErrNoVolume, name, name)
	}
	if err != nil {
		return v, fmt.Errorf("%w: %w", slave.ErrNoVolume, err)
	}
	return v, nil
}

// allows holds the beginning of a session to the policy. It is asked before the slave is opened, so
// what it refuses leaves no trace there.
func (o *Host) allows(p *policy.Policy, h *agent.Hello) error {
	if p.ReadOnly && !h.Inspect {
		return fmt.Errorf("%w: its policy is read-only, so it can be verified and nothing else; "+
			"an administrator of the slave's host may set read-only off (georep volume set, or the flags in authorized_keys)", slave.ErrPolicy)
	}
	if p.NoForce && h.Force {
		return fmt.Errorf("%w: its policy refuses --force (no-force); empty the directory or register another one on the "+
			"slave's host, or leave --force out", slave.ErrPolicy)
	}
	return o.bound(p.Master, h)
}

// bound holds a login to its master.
func (o *Host) bound(to string, h *agent.Hello) error {
	since := ""
	if to == policy.First {
		b, err := volume.Binding{}, error(nil)
		if h.DryRun { // leaves no trace
			b, err = o.Store.Bound(o.bindingName(h))
		} else {
			b, err = o.Store.Bind(o.bindingName(h), h.Master.String())
		}
		if err == nil && b.Master == "" {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: which master this login is bound to cannot be read or written: %w", slave.ErrPolicy, err)
		}
		to, since = b.Master, " since "+b.Since.Format("2006-01-02 15:04")+" UTC"
	}
	if to != "" && to != h.Master.String() {
		return fmt.Errorf("%w: this login is bound to the master volume %s%s and this is %s; "+
			"name the new one on the slave's host (--master in authorized_keys, or georep volume set NAME master)",
			slave.ErrPolicy, to, since, h.Master)
	}
	return nil
}

// bindingName tells logins apart: by key where sshd tells it, and by what they are held to. The
// same key with another forced command is another login.
func (o *Host) bindingName(h *agent.Hello) string {
	kind := "volume "
	if h.Path != "" {
		kind = "path "
	}
	return kind + h.Volume + h.Path + " " + o.Login.String()
}
