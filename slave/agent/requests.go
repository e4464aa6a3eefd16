package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"

	"georep/marker/xtime"
	"georep/slave"
)

// answer sends the answer to one request, in frames of about answerChunk bytes. It is for one
// goroutine, that of the request. An answer of any length takes a bounded buffer.
type answer struct {
	out  *sender
	room *semaphore.Weighted // taken while body is there
	ctx  context.Context     // of the request
	head
	body *[]byte
}

// bodies keeps the buffers that answers are gathered in.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

// add appends an item. It waits for room among the answers of all streams, and an error is ctx's.
func (a *answer) add(item func([]byte) []byte) error {
	if a.body == nil {
		if err := a.room.Acquire(a.ctx, 1); err != nil {
			return err
		}
		a.body = bodies.Get().(*[]byte)
	}
	*a.body = item(*a.body)
	if len(*a.body) < answerChunk {
		return nil
	}
	return a.send(true)
}

// end sends what is left.
func (a *answer) end() error { return a.send(false) }

// send sends what has been gathered. It waits while the client does not read, or until the request
// is cancelled. An error says that the stream or the request has ended, and the rest need not be
// made.
func (a *answer) send(more bool) error {
	defer a.leave()
	h := a.head
	h.more = more
	body := a.body
	if body == nil {
		body = new([]byte)
	}
	return a.out.put(a.ctx, outgoing{head: h, hurry: !more, body: func(b []byte) []byte { return append(b, *body...) }})
}

// leave gives the room back. The next item takes it again.
func (a *answer) leave() {
	if a.body == nil {
		return
	}
	a.room.Release(1)
	if cap(*a.body) <= 2*answerChunk {
		*a.body = (*a.body)[:0]
		bodies.Put(a.body)
	}
	a.body = nil
}

// fail answers with an error, which ends the session at the client's end. Where it cannot be sent
// the session is over. It is for trouble of the tree itself. Trouble with one path is an item of
// the answer.
func (a *answer) fail(err error) {
	_ = a.out.put(a.ctx, outgoing{head: head{kind: frameFailure, id: a.id}, hurry: true, body: errorBody(err)})
}

// request decodes a request and returns what is to be done, and what it takes in memory beyond its
// bytes. Nothing of the frame is used after that. An error is that of the protocol, and ends the
// session. What is returned runs on a goroutine of its own.
func (s *server) request(f frame) (run func(*answer) error, weight int, err error) {
	d := &decoder{b: f.body}
	switch f.kind {
	case frameSurvey:
		run = s.survey(queries(d))
	case frameFind:
		run = s.find(list(d, maxGFIDs, func(d *decoder) xtime.GFID { return d.id16() }))
	case frameHash:
		run = s.hash(list(d, maxItems, (*decoder).path))
	case frameCount:
		limit := d.size()
		run = s.count(limit, list(d, maxItems, (*decoder).path))
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
		run = s.examine(d.id16(), list(d, maxDetails, (*decoder).path))
	case frameDigest:
		run = s.digest(d.id16(), list(d, maxItems, (*decoder).path))
	case frameDistrust:
		run = s.distrust(list(d, maxItems, (*decoder).path))
	default:
		return nil, 0, malformed("a frame of kind %d out of place", f.kind)
	}
	if f.more {
		return nil, 0, malformed("a request of kind %d in several frames", f.kind)
	}
	return run, d.weight, d.end()
}

// path decodes a path; whether it is a valid one is for the tree to say.
func (d *decoder) path() string { return d.str(maxPath) }

// list decodes what is left of a frame. An item that does not decode ends the list, with the
// decoder's error.
func list[Q any](d *decoder, most int, get func(*decoder) Q) (all []Q) {
	for d.more() {
		if len(all) == most {
			d.fail("more than %d items in one request", most)
			break
		}
		all = append(all, get(d))
		d.weight += itemCost
	}
	return all
}

// queries decodes the questions of a survey, with so many names in all that a frame of short ones does not grow beyond
// measure in memory.
func queries(d *decoder) []slave.Query {
	names := 0
	return list(d, maxItems, func(d *decoder) slave.Query {
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

// begun is inStep for answers that may end before the questions do, but not before the first.
func begun(got, want int) error {
	if got < 1 || got > want {
		return fmt.Errorf("the slave's tree gave %d answers to %d questions", got, want)
	}
	return nil
}

// inStep finds a tree that breaks its contract before the client does, who would take it for a broken protocol.
func inStep(got, want int) error {
	if got != want {
		return fmt.Errorf("the slave's tree gave %d answers to %d questions", got, want)
	}
	return nil
}

// survey asks the tree for few directories at a time as long as they are large, and no more than the client is to have at once:
// that bounds the memory. It may end before the last of the queries.
func (s *server) survey(queries []slave.Query) func(*answer) error {
	return func(a *answer) error {
		if err := s.surveys.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.surveys.Release(1)
		a.kind = frameStates
		room, asked := int64(slave.MaxSurvey), len(queries)
		for step := 1; len(queries) > 0; {
			step = min(step, len(queries))
			states, err := s.surveyed(a, queries[:step])
			if err != nil {
				return err
			}
			entries := 0
			for i := range states {
				if room -= states[i].Weight(); room < 0 && len(queries) < asked {
					return a.end()
				}
				entries += len(states[i].Entries)
				if err := a.state(&states[i]); err != nil {
					return err
				}
				queries = queries[1:]
			}
			if step = min(step*2, surveyedAtOnce); entries >= manyEntries {
				step = 1
			}
		}
		return a.end()
	}
}

// changed is the slave as one that can be changed; one that is open for inspection cannot.
func (s *server) changed() (slave.Tree, error) {
	tree, ok := s.tree.(slave.Tree)
	if !ok {
		return nil, slave.ErrInspected
	}
	return tree, nil
}

// surveyed surveys some directories, and one at least. A directory that is larger than any answer
// is told as truncated, and the client asks for it in parts.
func (s *server) surveyed(a *answer, queries []slave.Query) ([]slave.DirState, error) {
	states, err := s.tree.Survey(a.ctx, queries)
	if err == nil {
		err = begun(len(states), len(queries))
	}
	for i := range states {
		if states[i].Weight() > slave.MaxSurvey {
			states[i].Entries, states[i].Truncated = nil, true
		}
	}
	return states, err
}

// state sends one directory. Entries that cannot be sent are left out. The client would end the
// session over an entry that the protocol cannot carry; the slave of another kind of system may
// have one.
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
		tree, err := s.changed()
		if err != nil {
			return err
		}
		if err := s.finding.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.finding.Release(1)
		found, err := tree.Find(a.ctx, gfids)
		if err == nil && len(gfids) > 0 {
			err = begun(len(found), len(gfids))
		}
		if err != nil {
			return err
		}
		for i := range found {
			if len(found[i].Path) > slave.MaxFoundPath {
				found[i] = slave.Found{} // which proves nothing
			}
		}
		return reply(a, frameFound, found[:slave.Within(found, slave.MaxFound, (*slave.Found).Weight)], appendFound)
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
		tree, err := s.changed()
		if err != nil {
			return err
		}
		if err := s.finding.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.finding.Release(1)
		groups, err := tree.Groups(a.ctx, most)
		if err != nil {
			return err
		}
		groups = groups[:min(len(groups), most)]
		for i := range groups {
			names := groups[i].Names
			groups[i].Names = names[:slave.Within(names, slave.MaxFoundPath, func(s *string) int64 { return int64(len(*s)) })]
			if len(names) > 0 && len(names[0]) > slave.MaxFoundPath {
				groups[i].Names = nil
			}
		}
		return reply(a, frameGrouped, groups[:slave.Within(groups, slave.MaxGroups, (*slave.Group).Weight)], appendGroup)
	}
}

// clean answers a Clean when all is deleted.
func (s *server) clean(olderThan int64) func(*answer) error {
	return func(a *answer) error {
		a.kind = frameCleaned
		tree, err := s.changed()
		if err != nil {
			return err
		}
		if err := tree.Clean(a.ctx, olderThan); err != nil {
			return err
		}
		return a.end()
	}
}

// batch takes a batch: its operations, then its contents, which the tree reads off the stream. It
// returns when the contents are through; the batch is then applied on a goroutine of its own. It
// runs on the reading goroutine. An error ends the session, and nothing of the batch is applied.
func (s *server) batch(f frame) error {
	batch, weight, err := decodeBatch(f)
	if err != nil {
		return err
	}
	held := s.decoded(f, weight)
	release := func() { held.release(); s.batches.Release(1) }
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
		s.commit(&answer{out: s.out, room: s.answers, ctx: ctx, head: head{kind: frameResults, id: f.id}}, len(batch.Ops), commit)
	})
	return nil
}

// decodeBatch decodes the operations, and tells what they take beyond their bytes; their contents
// are still in the stream. The whole of it is refused if one operation does not decode.
func decodeBatch(f frame) (batch *slave.Batch, weight int, err error) {
	d := &decoder{b: f.body}
	batch = &slave.Batch{}
	for d.more() {
		if len(batch.Ops) == slave.MaxOps {
			return nil, 0, malformed("a batch of more than %d operations", slave.MaxOps)
		}
		batch.Ops = append(batch.Ops, d.op())
	}
	if f.more {
		return nil, 0, malformed("a batch's operations in several frames")
	}
	return batch, len(batch.Ops)*opCost + d.xattrs*xattrCost, d.end()
}

// commitFunc applies a batch whose contents are staged, waits for its results, and is called once.
type commitFunc = func(context.Context) ([]slave.Result, error)

// commit applies a batch and answers. The answer is sent as long as the stream is there, whatever
// became of the context in the meantime. A batch that was cancelled is applied all the same, since
// it cannot be stopped half-way; only the answer is not wanted.
func (s *server) commit(a *answer, ops int, apply commitFunc) {
	defer a.leave()
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
