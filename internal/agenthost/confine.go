package agenthost

import (
	"fmt"
	"path/filepath"

	"kernel.org/pub/linux/libs/security/libcap/cap"

	"georep/internal/beneath"
	"georep/internal/confine"
	"georep/slave"
	"georep/slave/agent"
	"georep/slave/disk"
	"georep/slave/policy"
)

// Confine takes from this process what serving that client does not need, once tree is open: what
// the agent's own code would be made to do, by a master that found a way, stays within the slave.
// tree is nil in a process whose stream another one serves, which needs nothing any more. It
// returns what holds, for the status on the master. It is called once the slave is open and before
// the first request. What the kernel cannot do is told, and does not end the session.
func (o *Host) Confine(h *agent.Hello, tree slave.Reader) string {
	var n confine.Needs
	if tree != nil {
		// The audit log has a directory of its own. The registry says what the policy is by now.
		n.Write, n.Read = []string{filepath.Dir(o.auditLog(h))}, []string{o.Store.VolumesDir()}
		root := tree.Info().Path
		if g, ok := tree.(*guarded); ok {
			n.Write, n.Caps = append(n.Write, root), capabilities(&g.policy)
			if d := openStaging(root); d != nil {
				defer d.Close()
				n.Write = append(n.Write, fmt.Sprintf("/proc/self/fd/%d", d.Fd()))
			}
		} else {
			// It may take an xtime away, which also lies beside (slave.Examiner).
			n.Read, n.Write, n.Caps = append(n.Read, root), append(n.Write, filepath.Join(root, slave.Reserved)), looking()
		}
	}
	r := confine.Process(n)
	o.Log.Debug().Strs("holds", r.Holds).Strs("lacks", r.Lacks).Msg("the agent is confined")
	return r.String()
}

// openStaging opens the directory in which every file is made, as it lies below the root. Landlock goes up from there at each file
// until it meets a rule: with one of its own that is a step instead of three. nil is as good, and slower.
func openStaging(root string) *beneath.Dir {
	d, err := beneath.OpenRoot(root, true)
	if err != nil {
		return nil
	}
	defer d.Close()
	if d, err = d.OpenPath(slave.Reserved + "/" + disk.Staging); err != nil {
		return nil
	}
	return d
}

// looking are the capabilities of root by which it reads all there is: whatever the mode, without a trace in atimes, and trusted
// xattrs too.
func looking() []cap.Value { return []cap.Value{cap.DAC_READ_SEARCH, cap.FOWNER, cap.SYS_ADMIN} }

// capabilities are those by which root writes what a policy lets a master write. SYS_RESOURCE is what root may use the room for
// that a file system keeps back, and FSETID what a directory of another group keeps its set-gid bit by: without it the kernel drops
// the bit, and says nothing. It gives no set-uid bit, which the owner of a file may set anyway.
func capabilities(p *policy.Policy) []cap.Value {
	values := append(looking(), cap.DAC_OVERRIDE, cap.SYS_RESOURCE, cap.MAC_ADMIN)
	if !p.FakeOwner || p.Owner != nil {
		values = append(values, cap.CHOWN)
	}
	if !p.FakeOwner {
		values = append(values, cap.FSETID)
	}
	if !p.FakeOwner && !p.NoSetuid {
		values = append(values, cap.SETFCAP)
	}
	if !p.FakeOwner && !p.NoDevices {
		values = append(values, cap.MKNOD)
	}
	return values
}
