package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"georep/integration/harness/fstest"
	"georep/integration/harness/proxy"
	"georep/integration/harness/tree"
	"georep/status"
)

// netFault is something that a network does.
type netFault struct {
	name   string
	strike func(p *proxy.Proxy)
	silent bool // nobody is told: only the keep-alive notices
}

func netFaults() []netFault {
	return []netFault{
		{"reset", func(p *proxy.Proxy) { p.Refuse(true); p.Cut() }, false},
		{"half-open", func(p *proxy.Proxy) { p.Refuse(true); p.Abandon() }, false},
		{"black hole", func(p *proxy.Proxy) { p.Stall() }, true},
		{"deaf master", func(p *proxy.Proxy) { p.StallDown() }, true},
		{"deaf slave", func(p *proxy.Proxy) { p.StallUp() }, true},
	}
}

// noticed bounds how long a silent line may go unnoticed: three keep-alives of 10 s, or a minute where the master still
// hears the slave; and as much for a slow machine.
const noticed = 2 * time.Minute

// netPhase brings a session to a phase, and strikes in it.
type netPhase struct {
	name string
	run  func(n *network, strike func())
}

func netPhases() []netPhase {
	return []netPhase{
		{"handshake", (*network).handshake}, {"survey", (*network).survey}, {"content", (*network).content},
		{"idle", func(n *network, strike func()) { strike() }},
	}
}

// network is a session over a line that goes wrong.
type network struct {
	*session
	p      *proxy.Proxy
	serial int
}

// bigFile is sent at bigRate bytes a second.
const (
	bigFile = 12 << 20
	bigRate = 16 << 20
)

func newNetwork(t *testing.T) *network {
	master, slave := twoSides(t, fstest.Mount(t, fstest.Tmpfs, fstest.Options{}))
	s := newSession(t, master, slave)
	n := &network{session: s, p: s.through(proxy.Options{Rate: bigRate})}
	if err := tree.Many(master, 1500, 10, 100); err != nil {
		t.Fatal(err)
	}
	s.must(s.start("--retry-max", "1s"))
	s.waitSynced()
	return n
}

// handshake strikes a connection that has just begun.
func (n *network) handshake(strike func()) {
	before := n.p.Stats()
	n.p.Cut()
	n.waitLine("a new connection", func(s proxy.Stats) bool {
		return s.Connections > before.Connections && s.BytesDown > before.BytesDown
	})
	strike()
}

// survey strikes a crawl that has many directories to ask for.
func (n *network) survey(strike func()) {
	before := n.p.Stats().BytesUp
	n.shell(fmt.Sprintf("for d in d*; do chmod 7%d5 $d; echo %d > $d/f000001; done", n.serial%2*5, n.serial))
	n.waitLine("a crawl", func(s proxy.Stats) bool { return s.BytesUp > before+200 })
	strike()
}

// content strikes a big file that has partly arrived.
func (n *network) content(strike func()) {
	outside := filepath.Join(filepath.Dir(n.master), "big")
	incompressible(n.t.(*testing.T), outside, bigFile, byte(n.serial))
	rename(n.t.(*testing.T), outside, filepath.Join(n.master, "big"))
	for deadline := time.Now().Add(patience); n.received() < bigFile/3; pause(n.t, 5*time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("only %d bytes arrived", n.received())
		}
	}
	strike()
}

func (n *network) waitLine(what string, ok func(proxy.Stats) bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !ok(n.p.Stats()); pause(n.t, time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("never came: %s", what)
		}
	}
}

// fault has one fault in one phase: the session is Faulty and says why, and heals when the line does.
func (n *network) fault(f netFault, phase netPhase) {
	n.t.Helper()
	n.serial++
	writeFile(n.t, filepath.Join(n.master, "before"), fmt.Sprint(n.serial))
	sent, struck := n.p.Stats().BytesUp, time.Time{}
	phase.run(n, func() { struck = time.Now(); f.strike(n.p) })
	writeFile(n.t, filepath.Join(n.master, "meanwhile"), fmt.Sprint(n.serial))
	st := n.waitStatus("faulty", func(st status.Status) bool { return st.State == status.Faulty })
	after := time.Since(struck)
	n.t.Logf("%s, %s: Faulty after %.1f s: %s", f.name, phase.name, after.Seconds(), st.Reason)
	if f.silent && after > noticed || !saysWhy(st.Reason) {
		n.t.Errorf("%s, %s: noticed after %v, reason %q", f.name, phase.name, after, st.Reason)
	}
	n.p.Refuse(false)
	n.p.Resume()
	n.waitSynced()
	if again := n.p.Stats().BytesUp - sent - bigFile; phase.name == "content" && again > bigFile/2 {
		n.t.Errorf("%s: %d bytes of a file of %d were sent again", f.name, again, bigFile)
	}
}

// saysWhy tells whether an operator learns that it is the line.
func saysWhy(reason string) bool {
	return strings.Contains(reason, "peer dead") || strings.Contains(reason, "unreachable") || strings.Contains(reason, "silent")
}

// TestNetworkFaults strikes each phase of a session. In CI with the faults that are noticed at once; with
// GEOREP_NETWORK_FAULTS with all of them, in a quarter of an hour.
func TestNetworkFaults(t *testing.T) {
	n := newNetwork(t)
	all := os.Getenv("GEOREP_NETWORK_FAULTS") != ""
	for i, f := range netFaults() {
		for j, phase := range netPhases() {
			if !all && (f.silent || i == 0 && j%2 == 1 || i == 1 && j != 2) {
				continue
			}
			n.fault(f, phase)
		}
	}
	if all {
		n.slow()
	}
}

// slow is a line on which everything takes long, which is no fault: nothing is taken for dead.
func (n *network) slow() {
	n.must(n.run("config", n.masterArg, n.spec, "bwlimit", "100K"))
	outside := filepath.Join(filepath.Dir(n.master), "slow")
	incompressible(n.t.(*testing.T), outside, 8<<20, 77)
	rename(n.t.(*testing.T), outside, filepath.Join(n.master, "slow"))
	for begun := time.Now(); time.Since(begun) < noticed/2; pause(n.t, time.Second) {
		if st := n.status(); st.State == status.Faulty {
			n.t.Fatalf("Faulty over a slow line: %s", st.Reason)
		}
	}
	n.must(n.run("config", n.masterArg, n.spec, "bwlimit", "0"))
	n.waitSynced()
}
