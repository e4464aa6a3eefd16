package agent

import (
	"context"
	"encoding/binary"
	"math"

	"georep/slave"
)

var (
	_ slave.Examiner = (*Client)(nil)
	_ slave.Examiner = (*Group)(nil)
)

// Examine tells all there is to entries. Only an inspector may ask for it.
func (c *Client) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	x := exchange[string, slave.Detail]{ask: frameExamine, answer: frameExamined, most: maxDetails,
		weighs: 2*slave.ItemCost + maxTarget + errorCost, take: each((*decoder).detail), put: appendStr[string], check: checkPath, before: before(nonce)}
	return x.run(ctx, c, paths)
}

// Digest digests files after a nonce. Only an inspector may ask for it.
func (c *Client) Digest(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.HashResult, error) {
	x := exchange[string, slave.HashResult]{ask: frameDigest, answer: frameSums, most: maxItems,
		weighs: slave.ItemCost + errorCost, take: each((*decoder).hash), put: appendStr[string], check: checkPath, before: before(nonce)}
	return x.run(ctx, c, paths)
}

// before puts the nonce in front of a request's list.
func before(nonce slave.Nonce) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, nonce[:]...) }
}

// Distrust takes records back. Only an inspector may ask for it.
func (c *Client) Distrust(ctx context.Context, paths []string) ([]slave.Result, error) {
	x := exchange[string, slave.Result]{ask: frameDistrust, answer: frameDistrusted, most: maxItems,
		weighs: slave.ItemCost + errorCost, take: each((*decoder).result), put: appendStr[string], check: checkPath}
	return x.run(ctx, c, paths)
}

// Examine goes over stream 0.
func (g *Group) Examine(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.Detail, error) {
	all, err := g.main.Examine(ctx, nonce, paths)
	return all, g.reason(g.main, err)
}

// Digest goes over stream 0.
func (g *Group) Digest(ctx context.Context, nonce slave.Nonce, paths []string) ([]slave.HashResult, error) {
	all, err := g.main.Digest(ctx, nonce, paths)
	return all, g.reason(g.main, err)
}

// Distrust goes over stream 0.
func (g *Group) Distrust(ctx context.Context, paths []string) ([]slave.Result, error) {
	all, err := g.main.Distrust(ctx, paths)
	return all, g.reason(g.main, err)
}

// examiner is the tree where the session inspects; nobody else may ask for what it does. A worker's
// own session must not: Distrust would take back what its committer is about to rely on.
func (s *server) examiner() (slave.Examiner, error) {
	tree, ok := s.tree.(slave.Examiner)
	if !ok || !s.first.Inspect {
		return nil, malformed("a request that only an inspecting session may make")
	}
	return tree, nil
}

// examine answers an Examine.
func (s *server) examine(nonce slave.Nonce, paths []string) func(*answer) error {
	return examined(s, frameExamined, paths, func(e slave.Examiner, ctx context.Context, paths []string) ([]slave.Detail, error) {
		return e.Examine(ctx, nonce, paths)
	}, appendDetail)
}

// digest answers a Digest.
func (s *server) digest(nonce slave.Nonce, paths []string) func(*answer) error {
	return examined(s, frameSums, paths, func(e slave.Examiner, ctx context.Context, paths []string) ([]slave.HashResult, error) {
		return e.Digest(ctx, nonce, paths)
	}, appendHash)
}

// distrust answers a Distrust.
func (s *server) distrust(paths []string) func(*answer) error {
	return examined(s, frameDistrusted, paths, slave.Examiner.Distrust,
		func(b []byte, r slave.Result) []byte { return appendResult(b, &r) })
}

// examined asks the tree and answers with what it says. At most examinesAtOnce run, over all
// streams, since each may hash a large file.
func examined[A any](s *server, kind frameKind, paths []string,
	ask func(slave.Examiner, context.Context, []string) ([]A, error), put func([]byte, A) []byte,
) func(*answer) error {
	return func(a *answer) error {
		tree, err := s.examiner()
		if err != nil {
			return err
		}
		if err := s.examining.Acquire(a.ctx, 1); err != nil {
			return err
		}
		defer s.examining.Release(1)
		all, err := ask(tree, a.ctx, paths)
		if err == nil {
			err = inStep(len(all), len(paths))
		}
		if err != nil {
			return err
		}
		return reply(a, kind, all, put)
	}
}

// appendDetail encodes an entry without its name, which the question has.
func appendDetail(b []byte, e slave.Detail) []byte {
	b = appendRecord(append(b, byte(e.Kind)), e.Record)
	for _, v := range [...]uint64{uint64(e.Mode & 07777), uint64(e.UID), uint64(e.GID), uint64(e.Nlink),
		uint64(max(e.Size, 0)), e.Rdev, e.Ino} {
		b = binary.AppendUvarint(b, v)
	}
	b = appendStr(appendTime(b, e.Mtime), clip(e.Target, maxTarget))
	b = append(append(b, e.Xattrs[:]...), e.ACL[:]...)
	return appendError(b, e.Err)
}

// detail decodes an entry.
func (d *decoder) detail() (e slave.Detail) {
	e.Kind, e.Record = slave.Kind(d.u8()), d.record()
	e.Mode = uint32(d.uvarint(07777))
	e.UID, e.GID, e.Nlink = d.u32(), d.u32(), d.u32()
	e.Size, e.Rdev, e.Ino = d.size(), d.uvarint(math.MaxUint64), d.uvarint(math.MaxUint64)
	e.Mtime, e.Target = d.time(), d.str(maxTarget)
	copy(e.Xattrs[:], d.raw(slave.HashSize))
	copy(e.ACL[:], d.raw(slave.HashSize))
	e.Err = d.error()
	if d.err == nil && e.Kind > slave.Socket {
		d.fail("an entry of kind %d", e.Kind)
	}
	return e
}
