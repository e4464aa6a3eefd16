package serve

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// What the gate answers a connection with.
var (
	errCrowded = errors.New("too many connections that have not logged in")
	errTooFast = errors.New("too many logins of this address have failed")
	// ErrFull means that a key, or the server, has as many agents as it may have.
	ErrFull = errors.New("server full")
)

// maxAddresses bounds what the gate remembers. Whoever has more addresses than this gains tries, but no more connections.
const maxAddresses = 4096

// gate bounds the connections that have not logged in, in all and of each address. A login that succeeds costs nothing.
type gate struct {
	limits Limits

	// mu guards what follows, the visitors too. pending is the sum of theirs.
	mu      sync.Mutex
	pending int
	of      map[netip.Addr]*visitor // by origin
}

// visitor is an address that has connections, or has had logins that failed.
type visitor struct {
	pending int     // its connections that have not logged in
	tries   float64 // that it has left, as of since
	since   time.Time
}

// newGate makes a gate that nobody has come to yet, and that needs no end. It takes limits that are filled in.
func newGate(l Limits) *gate { return &gate{limits: l, of: make(map[netip.Addr]*visitor)} }

// enter asks for a connection, and takes one of its address's tries. An error means that it must be closed at once, without
// a word: whatever is sent to somebody who floods this host costs more than it helps. leave is called once, when the login has succeeded or not.
func (g *gate) enter(from net.Addr) (leave func(loggedIn bool), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// The total comes first, so that a flood from many addresses makes no visitors.
	if g.pending >= g.limits.Pending {
		return nil, errCrowded
	}
	at := origin(from)
	v := g.visitor(at)
	switch {
	case v.pending >= g.limits.PendingEach:
		return nil, errCrowded
	case v.tries < 1:
		return nil, errTooFast
	}
	g.pending++
	v.pending++
	v.tries--
	return func(loggedIn bool) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.pending--
		v.pending--
		if loggedIn { // a try that is given back, and never more than there were
			v.tries++
		}
	}, nil
}

// visitor finds an address, or makes one that has all of its tries, and gives it the tries that it has earned since. The lock is held.
func (g *gate) visitor(at netip.Addr) *visitor {
	now := time.Now()
	v := g.of[at]
	if v == nil {
		if len(g.of) >= maxAddresses {
			g.clean()
		}
		v = &visitor{tries: float64(g.limits.Burst), since: now}
		g.of[at] = v
	}
	v.tries = min(float64(g.limits.Burst), v.tries+now.Sub(v.since).Seconds())
	v.since = now
	return v
}

// clean forgets all addresses without connections. They get all of their tries back, which a host with so many addresses
// would have anyway. The lock is held.
func (g *gate) clean() {
	for at, v := range g.of {
		if v.pending == 0 {
			delete(g.of, at)
		}
	}
}

// origin is the address that a limit counts for: a network of 64 bits with IPv6, since a host there has all of it.
func origin(from net.Addr) netip.Addr {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	at := tcp.AddrPort().Addr().Unmap().WithZone("")
	if at.Is4() {
		return at
	}
	// One host has 2^64 addresses of IPv6 to come from.
	network, err := at.Prefix(64)
	if err != nil {
		return at
	}
	return network.Addr()
}

// tally counts agents, and the channels that a client has not closed yet, since both take memory. It counts them, in all and of each key. It may be used from any goroutine.
type tally struct {
	each, all int

	mu  sync.Mutex // guards both: sum is that of all keys
	sum int
	of  map[string]int
}

// take counts one more, or says that there is no room. Whoever took it gives it back.
func (t *tally) take(key string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sum >= t.all || t.of[key] >= t.each {
		return ErrFull
	}
	t.sum++
	t.of[key]++
	return nil
}

// give counts one less, and forgets a key that has none: what is remembered is bounded by the agents that run.
func (t *tally) give(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sum--
	if t.of[key]--; t.of[key] == 0 {
		delete(t.of, key)
	}
}
