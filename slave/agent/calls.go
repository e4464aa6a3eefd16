package agent

import (
	"context"
	"encoding/binary"
	"fmt"

	"georep/marker/xtime"
	"georep/slave"
)

// exchange describes a request that is a list and whose answer is one too, item for item. A list that is too long for
// one request goes in several, all of which are sent before the first answer is waited for.
type exchange[Q, A any] struct {
	ask, answer frameKind
	put         func([]byte, Q) []byte
	before      func([]byte) []byte // what stands before the list; may be nil
	check       func(Q) error       // may be nil
	// take decodes one item of an answer that must not grow beyond want.
	take func(d *decoder, answers []A, want int) []A
}

// pending is a part of an exchange under way.
type pending[A any] struct {
	*call
	answers []A
}

// run asks for the whole list and returns as many answers, in order. When it fails the calls under way are forgotten,
// and their late answers dropped.
func (x *exchange[Q, A]) run(ctx context.Context, c *Client, list []Q) ([]A, error) {
	var parts []*pending[A]
	defer func() {
		for _, p := range parts {
			c.forget(p.call)
		}
	}()
	for len(list) > 0 {
		body, n, err := x.encode(list)
		if err != nil {
			return nil, err
		}
		p := x.begin(c, n)
		parts = append(parts, p)
		frame := outgoing{head: head{kind: x.ask}, body: func(b []byte) []byte { return append(b, body...) }}
		if err := c.ask(ctx, p.call, frame); err != nil {
			return nil, err
		}
		list = list[n:]
	}
	var all []A
	for _, p := range parts {
		if err := c.wait(ctx, p.call); err != nil {
			return nil, err
		}
		all = append(all, p.answers...)
	}
	return all, c.errIfIdle(len(parts))
}

// encode takes as much of the list as goes into one request.
func (x *exchange[Q, A]) encode(list []Q) (body []byte, n int, err error) {
	if x.before != nil {
		body = x.before(body)
	}
	for n < len(list) && n < maxItems && len(body) < chunk {
		if x.check != nil {
			if err := x.check(list[n]); err != nil {
				return nil, 0, err
			}
		}
		body = x.put(body, list[n])
		n++
	}
	return body, n, nil
}

// begin registers the call for a request of so many questions.
func (x *exchange[Q, A]) begin(c *Client, want int) *pending[A] {
	p := &pending[A]{}
	p.call = c.begin(x.answer, func(d *decoder, last bool) error {
		for d.more() {
			p.answers = x.take(d, p.answers, want)
		}
		return complete(d, last, len(p.answers) == want)
	})
	return p
}

// each makes a take of a decoder's method, for answers of which each item stands alone.
func each[A any](get func(*decoder) A) func(*decoder, []A, int) []A {
	return func(d *decoder, answers []A, want int) []A {
		if len(answers) == want {
			d.fail("more than the %d answers asked for", want)
			return answers
		}
		return append(answers, get(d))
	}
}

// complete rejects an answer that ended too early.
func complete(d *decoder, last, all bool) error {
	if d.err == nil && last && !all {
		d.fail("an answer ended too early")
	}
	return d.err
}

// A path that the wire cannot carry is no path of any slave: such a call is the caller's mistake.
func checkPath(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("%w: a path of %d bytes", slave.ErrInvalid, len(path))
	}
	return nil
}

// Survey reads the state of directories. Large ones come in several frames, so that nothing else has to wait for them.
func (c *Client) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	x := exchange[slave.Query, slave.DirState]{ask: frameSurvey, answer: frameStates, put: appendQuery,
		take: takeState, check: checkQuery}
	return x.run(ctx, c, queries)
}

// takeState decodes a directory, or an entry of the last one.
func takeState(d *decoder, states []slave.DirState, want int) []slave.DirState {
	item := d.u8()
	switch n := len(states); {
	case item == itemDir && n < want:
		return append(states, d.dirState())
	case item == itemEntry && n > 0 && len(states[n-1].Entries) < slave.MaxEntries:
		states[n-1].Entries = append(states[n-1].Entries, d.entry())
	default:
		d.fail("item %d after %d of %d directories", item, n, want)
	}
	return states
}

// Find tells where the slave has inodes.
func (c *Client) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	x := exchange[xtime.GFID, slave.Found]{ask: frameFind, answer: frameFound, take: each((*decoder).found),
		put: func(b []byte, g xtime.GFID) []byte { return append(b, g[:]...) }}
	return x.run(ctx, c, gfids)
}

// Hash digests files.
func (c *Client) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	x := exchange[string, slave.HashResult]{ask: frameHash, answer: frameSums, take: each((*decoder).hash),
		put: appendStr[string], check: checkPath}
	return x.run(ctx, c, paths)
}

// Count counts entries at and below paths.
func (c *Client) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	x := exchange[string, int64]{ask: frameCount, answer: frameCounted, take: each((*decoder).size),
		put: appendStr[string], check: checkPath,
		before: func(b []byte) []byte { return binary.AppendUvarint(b, uint64(max(limit, 0))) }}
	return x.run(ctx, c, paths)
}

// Groups returns inodes of which names may be missing, 65,536 at most.
func (c *Client) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	most = min(max(most, 0), maxGroups)
	var groups []slave.Group
	k := c.begin(frameGrouped, func(d *decoder, _ bool) error {
		for d.more() && len(groups) < most {
			groups = append(groups, d.group())
		}
		return d.err
	})
	err := c.ask(ctx, k, outgoing{head: head{kind: frameGroups},
		body: func(b []byte) []byte { return binary.AppendUvarint(b, uint64(most)) }})
	if err == nil {
		err = c.wait(ctx, k)
	}
	if err != nil {
		return nil, err
	}
	return groups, nil
}

// Clean deletes what was parked long enough ago.
func (c *Client) Clean(ctx context.Context, olderThan int64) error {
	k := c.begin(frameCleaned, func(d *decoder, _ bool) error { return d.err })
	err := c.ask(ctx, k, outgoing{head: head{kind: frameClean},
		body: func(b []byte) []byte { return binary.AppendVarint(b, olderThan) }})
	if err != nil {
		return err
	}
	return c.wait(ctx, k)
}
