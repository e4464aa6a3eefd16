package agent

import (
	"context"
	"encoding/binary"
	"fmt"

	"georep/marker/xtime"
	"georep/slave"
)

// answer sends the answer to one request, in frames of about chunk bytes.
type answer struct {
	out *sender
	ctx context.Context // of the request
	head
	body []byte
}

// add appends an item.
func (a *answer) add(item func([]byte) []byte) error {
	a.body = item(a.body)
	if len(a.body) < chunk {
		return nil
	}
	return a.send(true)
}

// end sends what is left.
func (a *answer) end() error { return a.send(false) }

// send sends what has been gathered. It waits while the client does not read, or until the request is cancelled.
func (a *answer) send(more bool) error {
	h := a.head
	h.more = more
	err := a.out.put(a.ctx, outgoing{head: h, hurry: !more, body: func(b []byte) []byte { return append(b, a.body...) }})
	a.body = a.body[:0]
	return err
}

// fail answers with an error, which ends the session at the client's end. Where it cannot be sent the session is over.
func (a *answer) fail(err error) {
	_ = a.out.put(a.ctx, outgoing{head: head{kind: frameFailure, id: a.id}, hurry: true, body: errorBody(err)})
}

// request decodes a request and returns what is to be done. Nothing of the frame is used after that.
func (s *server) request(f frame) (func(*answer) error, error) {
	d := &decoder{b: f.body}
	var run func(*answer) error
	switch f.kind {
	case frameSurvey:
		run = s.survey(queries(d))
	case frameFind:
		run = s.find(list(d, func(d *decoder) xtime.GFID { return d.id16() }))
	case frameHash:
		run = s.hash(list(d, (*decoder).path))
	case frameCount:
		limit := d.size()
		run = s.count(limit, list(d, (*decoder).path))
	case frameGroups:
		run = s.groups(int(d.uvarint(maxGroups)))
	case frameClean:
		run = s.clean(d.varint())
	case frameBegin:
		run = s.begin(d.upload())
	case frameSign:
		run = s.sums(d.sumsQuery())
	case frameWrite:
		run = s.writeSegment(d)
	case frameExamine:
		run = s.examine(d.id16(), list(d, (*decoder).path))
	case frameDigest:
		run = s.digest(d.id16(), list(d, (*decoder).path))
	case frameDistrust:
		run = s.distrust(list(d, (*decoder).path))
	default:
		return nil, malformed("a frame of kind %d out of place", f.kind)
	}
	if f.more {
		return nil, malformed("a request of kind %d in several frames", f.kind)
	}
	return run, d.end()
}

// path decodes a path; whether it is a valid one is for the tree to say.
func (d *decoder) path() string { return d.str(maxPath) }

// list decodes what is left of a frame.
func list[Q any](d *decoder, get func(*decoder) Q) (all []Q) {
	for d.more() {
		if len(all) == maxItems {
			d.fail("more than %d items in one request", maxItems)
			break
		}
		all = append(all, get(d))
	}
	return all
}

// queries decodes the questions of a survey, with so many names in all that a frame of short ones does not grow beyond
// measure in memory.
func queries(d *decoder) []slave.Query {
	names := 0
	return list(d, func(d *decoder) slave.Query {
		q := d.query()
		if names += len(q.Names); names > maxNames {
			d.fail("more than %d names in one request", maxNames)
		}
		return q
	})
}

// reply sends a list of answers after checking that the tree gave as many as it was asked for.
func reply[A any](a *answer, kind frameKind, all []A, put func([]byte, A) []byte) error {
	a.kind = kind
	for _, one := range all {
		if err := a.add(func(b []byte) []byte { return put(b, one) }); err != nil {
			return err
		}
	}
	return a.end()
}

// inStep finds a tree that breaks its contract before the client does, who would take it for a broken protocol.
func inStep(got, want int) error {
	if got != want {
		return fmt.Errorf("the slave's tree gave %d answers to %d questions", got, want)
	}
	return nil
}

// survey asks the tree for few directories at a time as long as they are large: that bounds the memory.
func (s *server) survey(queries []slave.Query) func(*answer) error {
	return func(a *answer) error {
		if err := s.surveys.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.surveys.Release(1)
		a.kind = frameStates
		for step := 1; len(queries) > 0; {
			step = min(step, len(queries))
			entries, err := s.surveyed(a, queries[:step])
			if err != nil {
				return err
			}
			queries = queries[step:]
			step = min(step*2, surveyedAtOnce)
			if entries >= manyEntries {
				step = 1
			}
		}
		return a.end()
	}
}

// surveyed surveys and sends some directories, and tells how many entries they had.
func (s *server) surveyed(a *answer, queries []slave.Query) (entries int, err error) {
	states, err := s.tree.Survey(a.ctx, queries)
	if err == nil {
		err = inStep(len(states), len(queries))
	}
	for i := 0; i < len(states) && err == nil; i++ {
		entries += len(states[i].Entries)
		err = a.state(&states[i])
	}
	return entries, err
}

// state sends one directory. Entries that cannot be sent are left out.
func (a *answer) state(state *slave.DirState) error {
	if err := a.add(func(b []byte) []byte { return appendDirState(b, state) }); err != nil {
		return err
	}
	for i := range state.Entries {
		entry := &state.Entries[i]
		if !sendable(entry) {
			continue
		}
		if err := a.add(func(b []byte) []byte { return appendEntry(b, entry) }); err != nil {
			return err
		}
	}
	return nil
}

// find, like the others below, returns what answers a request on its own goroutine; an error of the tree goes to the
// client and ends the session there.
func (s *server) find(gfids []xtime.GFID) func(*answer) error {
	return func(a *answer) error {
		found, err := s.tree.Find(a.ctx, gfids)
		if err == nil {
			err = inStep(len(found), len(gfids))
		}
		if err != nil {
			return err
		}
		return reply(a, frameFound, found, appendFound)
	}
}

// hash answers a Hash.
func (s *server) hash(paths []string) func(*answer) error {
	return func(a *answer) error {
		sums, err := s.tree.Hash(a.ctx, paths)
		if err == nil {
			err = inStep(len(sums), len(paths))
		}
		if err != nil {
			return err
		}
		return reply(a, frameSums, sums, appendHash)
	}
}

// count answers a Count.
func (s *server) count(limit int64, paths []string) func(*answer) error {
	return func(a *answer) error {
		counts, err := s.tree.Count(a.ctx, paths, limit)
		if err == nil {
			err = inStep(len(counts), len(paths))
		}
		if err != nil {
			return err
		}
		return reply(a, frameCounted, counts, appendSize)
	}
}

// groups answers a Groups; a tree that gives more than it was asked for is cut short.
func (s *server) groups(most int) func(*answer) error {
	return func(a *answer) error {
		groups, err := s.tree.Groups(a.ctx, most)
		if err != nil {
			return err
		}
		return reply(a, frameGrouped, groups[:min(len(groups), most)], appendGroup)
	}
}

// clean answers a Clean when all is deleted.
func (s *server) clean(olderThan int64) func(*answer) error {
	return func(a *answer) error {
		a.kind = frameCleaned
		if err := s.tree.Clean(a.ctx, olderThan); err != nil {
			return err
		}
		return a.end()
	}
}

// batch takes a batch: its operations, then its contents, which the tree reads off the stream. It returns when the
// contents are through; the batch is then applied on a goroutine of its own.
func (s *server) batch(f frame) error {
	batch, err := decodeBatch(f)
	if err != nil {
		return err
	}
	cost := int64(len(f.body) + requestCost)
	if err := s.batches.Acquire(s.reading, 1); err != nil {
		return err
	}
	if err := s.given.Acquire(s.reading, cost); err != nil {
		s.batches.Release(1)
		return err
	}
	release := func() { s.given.Release(cost); s.batches.Release(1) }
	ctx, done, err := s.register(s.committing, f.id)
	if err != nil {
		release()
		return err
	}
	commit, err := s.stage(ctx, f.id, batch)
	if err != nil {
		done()
		release()
		return err
	}
	s.commits.Go(func() {
		defer release()
		defer done()
		s.commit(&answer{out: s.out, ctx: ctx, head: head{kind: frameResults, id: f.id}}, len(batch.Ops), commit)
	})
	return nil
}

// decodeBatch decodes the operations; their contents are still in the stream.
func decodeBatch(f frame) (*slave.Batch, error) {
	d := &decoder{b: f.body}
	batch := &slave.Batch{}
	for d.more() {
		if len(batch.Ops) == slave.MaxOps {
			return nil, malformed("a batch of more than %d operations", slave.MaxOps)
		}
		batch.Ops = append(batch.Ops, d.op())
	}
	if f.more {
		return nil, malformed("a batch's operations in several frames")
	}
	return batch, d.end()
}

type commitFunc = func(context.Context) ([]slave.Result, error)

// commit applies a batch and answers. The answer is sent as long as the stream is there, whatever became of the context
// in the meantime.
func (s *server) commit(a *answer, ops int, apply commitFunc) {
	results, err := apply(a.ctx)
	if err == nil {
		err = inStep(len(results), ops)
	}
	cancelled := a.ctx.Err() != nil
	a.ctx = s.reading
	switch {
	case err == nil:
		// Where the results cannot be sent the session is over, and the reader knows why.
		_ = reply(a, frameResults, results, func(b []byte, r slave.Result) []byte { return appendResult(b, &r) })
	case !cancelled:
		a.fail(err)
	}
}

// appendSize encodes a number of a list.
func appendSize(b []byte, n int64) []byte { return binary.AppendUvarint(b, uint64(max(n, 0))) }
