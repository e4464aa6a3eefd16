package agent

import (
	"context"
	"encoding/binary"
	"fmt"

	"georep/marker/xtime"
	"georep/slave"
)

// exchange describes a request that is a list and whose answer is one too, item for item. It has no
// state: one value may run any number of calls.
type exchange[Q, A any] struct {
	ask, answer frameKind
	most        int // items of one request
	// weighs is what Client.reserve takes for each item before anything is asked.
	weighs int64 // the most that one answer does
	put    func([]byte, Q) []byte
	before func([]byte) []byte // what stands before the list; may be nil
	check  func(Q) error       // may be nil
	names  func(Q) int         // that a question has, of which a request has a bound; may be nil
	// take decodes one item of an answer that must not grow beyond want.
	take func(d *decoder, answers []A, want int) []A
}

// pending is a part of an exchange under way. Its answers are the reading goroutine's until the
// call is done.
type pending[A any] struct {
	*call
	answers []A
}

// run asks for the whole list and returns as many answers, in order. A list that is too long for
// one request goes in several, all of which are sent before the first answer is waited for. When it
// fails the calls under way are forgotten, and their late answers dropped. Either all answers come
// or an error; a server that answers fewer has broken the protocol.
func (x *exchange[Q, A]) run(ctx context.Context, c *Client, list []Q) ([]A, error) {
	release, err := c.reserve(ctx, int64(len(list))*x.weighs)
	if err != nil {
		return nil, err
	}
	defer release()
	var parts []*pending[A]
	defer func() {
		for _, p := range parts {
			c.forget(p.call)
		}
	}()
	for len(list) > 0 {
		p, n, err := x.send(ctx, c, list, false)
		if err != nil {
			return nil, err
		}
		parts, list = append(parts, p), list[n:]
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

// first asks for as much of the list as goes into one request. The answers, which weigh most at the
// most, may end before that. The caller asks again for what was not answered. At least one answer
// comes, so that always ends.
func (x *exchange[Q, A]) first(ctx context.Context, c *Client, list []Q, most int64) ([]A, error) {
	if len(list) == 0 {
		return nil, c.errIfIdle(0)
	}
	release, err := c.reserve(ctx, most)
	if err != nil {
		return nil, err
	}
	defer release()
	p, _, err := x.send(ctx, c, list, true)
	if err != nil {
		return nil, err
	}
	if err := c.wait(ctx, p.call); err != nil {
		return nil, err
	}
	return p.answers, nil
}

// send sends a request for as much of the list as goes into one, and tells how much that was. short tells that the answer may
// have less than that.
func (x *exchange[Q, A]) send(ctx context.Context, c *Client, list []Q, short bool) (*pending[A], int, error) {
	body, n, err := x.encode(list)
	if err != nil {
		return nil, 0, err
	}
	p := x.begin(c, n, short)
	err = c.ask(ctx, p.call, outgoing{head: head{kind: x.ask}, body: func(b []byte) []byte { return append(b, body...) }})
	return p, n, err
}

// encode takes as much of the list as goes into one request. It takes at least one item, unless the
// item itself is refused.
func (x *exchange[Q, A]) encode(list []Q) (body []byte, n int, err error) {
	if x.before != nil {
		body = x.before(body)
	}
	for names := 0; n < len(list) && n < x.most && len(body) < chunk; n++ {
		if x.names != nil {
			if names += x.names(list[n]); n > 0 && names > maxNames {
				break
			}
		}
		if x.check != nil {
			if err := x.check(list[n]); err != nil {
				return nil, 0, err
			}
		}
		body = x.put(body, list[n])
	}
	return body, n, nil
}

// begin registers the call for a request of so many questions.
func (x *exchange[Q, A]) begin(c *Client, want int, short bool) *pending[A] {
	p := &pending[A]{}
	p.call = c.begin(x.answer, func(d *decoder, last bool) error {
		for d.more() {
			p.answers = x.take(d, p.answers, want)
		}
		return complete(d, last, len(p.answers) == want || short && len(p.answers) > 0)
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

// complete rejects an answer that ended too early. It is what makes a server that answers too
// little a broken protocol, and not a slave without entries.
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

// Survey reads the state of directories. Large ones come in several frames, so that nothing else
// has to wait for them. Entries of one directory arrive over several frames and are put together
// here.
func (c *Client) Survey(ctx context.Context, queries []slave.Query) ([]slave.DirState, error) {
	x := exchange[slave.Query, slave.DirState]{ask: frameSurvey, answer: frameStates, most: maxItems, put: appendQuery,
		take: takeStates(), check: checkQuery, names: func(q slave.Query) int { return len(q.Names) }}
	return x.first(ctx, c, queries, slave.MaxSurvey+int64(min(len(queries), maxItems))*errorCost)
}

// takeStates makes what decodes a directory, or an entry of the last one. It keeps count over all
// frames of one answer, so it is made anew for each call.
func takeStates() func(*decoder, []slave.DirState, int) []slave.DirState {
	weight := int64(0)
	return func(d *decoder, states []slave.DirState, want int) []slave.DirState {
		item := d.u8()
		switch n := len(states); {
		case item == itemDir && n < want:
			states = append(states, d.dirState())
			weight += slave.ItemCost
		case item == itemEntry && n > 0 && len(states[n-1].Entries) < slave.MaxEntries:
			e := d.entry()
			states[n-1].Entries = append(states[n-1].Entries, e)
			weight += e.Weight()
		default:
			d.fail("item %d after %d of %d directories in the answer to a survey", item, n, want)
		}
		if weight > slave.MaxSurvey {
			d.fail("the answer to a survey is beyond %d bytes", slave.MaxSurvey)
		}
		return states
	}
}

// Find tells where the slave has inodes. The answer may be shorter than the question, and is one
// long at least.
func (c *Client) Find(ctx context.Context, gfids []xtime.GFID) ([]slave.Found, error) {
	weight := int64(0)
	take := func(d *decoder) slave.Found {
		f := d.found()
		if weight += f.Weight(); weight > slave.MaxFound {
			d.fail("the answer to a find is beyond %d bytes", slave.MaxFound)
		}
		return f
	}
	x := exchange[xtime.GFID, slave.Found]{ask: frameFind, answer: frameFound, most: maxGFIDs, take: each(take),
		put: func(b []byte, g xtime.GFID) []byte { return append(b, g[:]...) }}
	return x.first(ctx, c, gfids, slave.MaxFound)
}

// Hash digests files.
func (c *Client) Hash(ctx context.Context, paths []string) ([]slave.HashResult, error) {
	x := exchange[string, slave.HashResult]{ask: frameHash, answer: frameSums, most: maxItems, weighs: slave.ItemCost + errorCost,
		take: each((*decoder).hash), put: appendStr[string], check: checkPath}
	return x.run(ctx, c, paths)
}

// Count counts entries at and below paths.
func (c *Client) Count(ctx context.Context, paths []string, limit int64) ([]int64, error) {
	x := exchange[string, int64]{ask: frameCount, answer: frameCounted, most: maxItems, weighs: slave.ItemCost, take: each((*decoder).size),
		put: appendStr[string], check: checkPath,
		before: func(b []byte) []byte { return binary.AppendUvarint(b, uint64(max(limit, 0))) }}
	return x.run(ctx, c, paths)
}

// Groups returns inodes of which names may be missing, 65,536 at most. They are all in one answer,
// so nothing can change between two of them.
func (c *Client) Groups(ctx context.Context, most int) ([]slave.Group, error) {
	most = min(max(most, 0), maxGroups)
	release, err := c.reserve(ctx, slave.MaxGroups)
	if err != nil {
		return nil, err
	}
	defer release()
	var groups []slave.Group
	weight := int64(0)
	err = c.once(ctx, frameGroups, frameGrouped, func(b []byte) []byte { return binary.AppendUvarint(b, uint64(most)) },
		func(d *decoder, _ bool) error {
			for d.more() && len(groups) < most {
				g := d.group()
				if weight += g.Weight(); weight > slave.MaxGroups {
					d.fail("the answer to a groups is beyond %d bytes", slave.MaxGroups)
				}
				groups = append(groups, g)
			}
			return d.err
		})
	if err != nil {
		return nil, err
	}
	return groups, nil
}

// Clean deletes what was parked long enough ago. It waits as long as deleting takes. When ctx ends,
// the slave goes on with what it has begun.
func (c *Client) Clean(ctx context.Context, olderThan int64) error {
	k := c.begin(frameCleaned, func(d *decoder, _ bool) error { return d.err })
	err := c.ask(ctx, k, outgoing{head: head{kind: frameClean},
		body: func(b []byte) []byte { return binary.AppendVarint(b, olderThan) }})
	if err != nil {
		return err
	}
	return c.wait(ctx, k)
}
