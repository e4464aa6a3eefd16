package agent

import (
	"slices"
	"time"
)

// How long a slave may leave a request unanswered, while it answers nothing else, before that is worth telling. What it reads
// or removes for Hash, Count and Clean may have any size, and the answer comes at the end.
const (
	patience     = time.Minute
	patienceLong = time.Hour
)

// asked names requests by what answers them, for the operator.
var asked = map[frameKind]string{frameStates: "survey", frameFound: "find", frameSums: "hash", frameResults: "apply", frameGrouped: "groups",
	frameCounted: "count", frameCleaned: "clean", frameBegun: "begin", frameSigned: "sums", frameWritten: "write",
	frameExamined: "examine", frameDistrusted: "distrust"}

// patienceWith is how long the answer to a call may take.
func patienceWith(k *call) time.Duration {
	switch k.answer {
	case frameSums, frameCounted, frameCleaned:
		return patienceLong
	}
	return patience
}

// Unanswered tells of a slave that is asked and does nothing: it has not answered the oldest request, nor anything else, and took
// nothing that was sent to it, for longer than it should need. request says what that was, since how long it is so; zero
// where nothing is wrong. The session may live all the same: a slave that only says that it is alive does not end it.
func (c *Client) Unanswered() (request string, since time.Time) {
	return unanswered(c.moved(), c.waiting())
}

// Unanswered is Client's, of all streams: while one gets on, the slave is at work.
func (g *Group) Unanswered() (request string, since time.Time) {
	g.mu.Lock()
	clients := slices.Clone(g.clients)
	g.mu.Unlock()
	var moved time.Time
	var calls []*call
	for _, c := range clients {
		moved = later(moved, c.moved())
		calls = append(calls, c.waiting()...)
	}
	return unanswered(moved, calls)
}

// moved is when the slave last answered anything, or took what was sent to it.
func (c *Client) moved() time.Time {
	c.out.mu.Lock()
	taken := c.out.taken
	c.out.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	return later(c.heard, taken)
}

// waiting lists the calls that have no answer yet.
func (c *Client) waiting() (calls []*call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		calls = append(calls, k)
	}
	return calls
}

// unanswered finds the oldest of the calls that wait for too long.
func unanswered(moved time.Time, calls []*call) (request string, since time.Time) {
	var oldest *call
	for _, k := range calls {
		late := time.Since(later(k.begun, moved)) >= patienceWith(k)
		if late && (oldest == nil || k.begun.Before(oldest.begun)) {
			oldest = k
		}
	}
	if oldest == nil {
		return "", time.Time{}
	}
	return asked[oldest.answer], later(oldest.begun, moved)
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
