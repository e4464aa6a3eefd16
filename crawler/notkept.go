package crawler

import (
	"strconv"
	"strings"
	"sync"

	"georep/slave"
)

// Loss is an entry of which the slave could not keep something.
type Loss struct {
	Path string
	Lost slave.Lost
}

// maxLosses bounds the entries that a session names.
const maxLosses = 100

// perEntry is what some entries lose while others of the same kind keep it, so that the entry is worth a name.
const perEntry = slave.LostXattr

// notKept remembers entries that lost something: those that nobody took yet, and the first that lost each thing.
type notKept struct {
	mu    sync.Mutex
	list  []Loss
	count int
	first map[slave.Lost]string
	// policy is that of the slave's host, as it was told last.
	policy slave.PolicyLimits
}

func (l *notKept) add(path string, lost slave.Lost) {
	if lost &= perEntry; lost == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count < maxLosses {
		l.count++
		l.list = append(l.list, Loss{path, lost})
	}
	if l.first == nil {
		l.first = map[slave.Lost]string{}
	}
	for bit := slave.Lost(1); bit != 0; bit <<= 1 {
		if _, known := l.first[bit]; !known && lost&bit != 0 {
			l.first[bit] = path
		}
	}
}

// underPolicy begins a session with a slave of that policy. What was lost under another one says nothing of this one.
func (c *Counters) underPolicy(p slave.PolicyLimits) {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	if c.kept.policy != p {
		c.kept.policy, c.kept.first = p, nil
		c.Lost.Store(0)
	}
}

// Policy names what the policy of the slave's host changes; "" for nothing.
func (c *Counters) Policy() string {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	return c.kept.policy.String()
}

// TakeLosses gives the entries that lost something since it was called last; of a session the first maxLosses are named.
func (c *Counters) TakeLosses() []Loss {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	list := c.kept.list
	c.kept.list = nil
	return list
}

// NotKept lists what the slave could not keep so far, with an entry each where it depends on the entry; "" for nothing.
func (c *Counters) NotKept() string {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	var said []string
	lost := slave.Lost(c.Lost.Load())
	for bit := slave.Lost(1); bit != 0; bit <<= 1 {
		if lost&bit == 0 {
			continue
		}
		one := bit.String()
		if path, known := c.kept.first[bit]; known {
			one += " (first of " + strconv.Quote(path) + ")"
		}
		said = append(said, one)
	}
	if c.kept.policy.Changes(lost) {
		said = append(said, "as the policy of its host says ("+c.kept.policy.String()+")")
	}
	if c.Evicted.Load() {
		said = append(said, "all that was removed, for as long as it was to be kept (the slave was full)")
	}
	return strings.Join(said, ", ")
}
