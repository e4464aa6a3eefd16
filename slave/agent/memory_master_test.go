package agent

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

// saysMost is a server that answers each request with the most that the client allows.
type saysMost struct{ answers map[frameKind][]byte }

func newSaysMost() *saysMost {
	state := fullState()
	b := appendDirState(nil, &state)
	for i := range state.Entries {
		b = appendEntry(b, &state.Entries[i])
	}
	s := &saysMost{map[frameKind][]byte{frameSurvey: b}}
	list := func(kind frameKind, n int, put func([]byte, int) []byte) {
		for i := range n {
			s.answers[kind] = put(s.answers[kind], i)
		}
	}
	found, groups, have := fullFound(), fullGroups(), fullRanges()
	list(frameFind, len(found), func(b []byte, i int) []byte { return appendFound(b, found[i]) })
	list(frameGroups, len(groups), func(b []byte, i int) []byte { return appendGroup(b, groups[i]) })
	s.answers[frameBegin] = appendUploadState(nil, &slave.UploadState{Err: fullError()})
	list(frameBegin, len(have), func(b []byte, i int) []byte { return appendRange(b, have[i]) })
	list(frameHash, 64, func(b []byte, _ int) []byte { return appendHash(b, slave.HashResult{Err: fullError()}) })
	list(frameBatch, batchLike, func(b []byte, _ int) []byte { return appendResult(b, &slave.Result{Err: fullError()}) })
	s.answers[frameWrite] = appendResult(nil, &slave.Result{Err: fullError()})
	return s
}

// batchLike is as many operations as a crawl has in a batch.
const batchLike = 256

// answerOf gives what answers a request, and the length of what goes into a frame of it.
func (s *saysMost) answerOf(kind frameKind) (answer frameKind, body []byte) {
	return map[frameKind]frameKind{frameSurvey: frameStates, frameFind: frameFound, frameGroups: frameGrouped, frameBegin: frameBegun,
		frameHash: frameSums, frameBatch: frameResults, frameWrite: frameWritten}[kind], s.answers[kind]
}

func (s *saysMost) serve(rw io.ReadWriteCloser) {
	info := testInfo()
	rw.Write(appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameWelcome},
		func(b []byte) []byte { return appendWelcome(b, &welcome{info: info, token: Token{1}}) }))
	r := newReceiver(rw)
	r.r.Discard(len(preface{version: "1.2.3"}.append(nil)))
	for {
		f, err := r.next()
		if err != nil {
			return
		}
		kind, body := s.answerOf(f.kind)
		for len(body) > 0 {
			n := len(body)
			if n > maxAnswer-16 {
				n = itemsOf(kind, body, maxAnswer-16)
			}
			b := appendFrame(nil, head{kind: kind, id: f.id, more: n < len(body)}, func(b []byte) []byte { return append(b, body[:n]...) })
			if _, err := rw.Write(b); err != nil {
				return
			}
			body = body[n:]
		}
	}
}

// itemsOf is itemsWithin for the other lists.
func itemsOf(kind frameKind, body []byte, most int) (n int) {
	switch kind {
	case frameStates, frameFound, frameGrouped:
		return itemsWithin(kind, body, most)
	}
	d := decoder{b: body}
	for d.more() {
		if kind == frameSums {
			d.raw(slave.HashSize)
			_, k := binary.Uvarint(d.b)
			d.raw(k)
		} else {
			d.raw(2)
		}
		if d.error(); len(body)-len(d.b) > most {
			break
		}
		n = len(body) - len(d.b)
	}
	return n
}

// hostileSlave says the most to everything.
func hostileSlave(t *testing.T, ends []end, goOn func()) {
	far := newSaysMost()
	var wg sync.WaitGroup
	for _, rw := range ends {
		wg.Go(func() { far.serve(rw) })
	}
	wg.Wait()
}

// victimMaster asks for all that a crawl may ask at the same time. All answers are kept until the last has come.
func victimMaster(t *testing.T, ends []end) {
	grown := make(chan int, 1)
	g, err := DialGroup(context.Background(), testHello(), GroupOptions{Streams: MaxStreams,
		Open:   func(_ context.Context, number int) (io.ReadWriteCloser, error) { return ends[number], nil },
		OnGrow: func(have int, err error) { grown <- have }})
	if err != nil {
		t.Fatal(err)
	}
	g.Grow()
	if have := <-grown; have != MaxStreams {
		t.Fatalf("%d streams", have)
	}
	for range 2 {
		askAll(t, g)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
}

// askAll asks as much at once as a crawl does, and keeps what was answered as long.
func askAll(t *testing.T, g *Group) {
	const visitors, batches, uploads = 8, 24, 8
	var asked, over sync.WaitGroup
	all := make(chan struct{})
	ask := func(call func(ctx context.Context) (any, error)) {
		asked.Add(1)
		over.Go(func() {
			kept, err := call(context.Background())
			if err != nil {
				t.Error(err)
			}
			asked.Done()
			<-all
			runtime.KeepAlive(kept)
		})
	}
	for range visitors {
		ask(func(ctx context.Context) (any, error) {
			states, err := g.Survey(ctx, []slave.Query{{}})
			if err != nil || len(states) != 1 {
				return states, fmt.Errorf("%d states, %w", len(states), err)
			}
			found, err := g.Find(ctx, make([]xtime.GFID, maxGFIDs))
			return []any{states, found}, err
		})
		ask(func(ctx context.Context) (any, error) { return g.Hash(ctx, make([]string, 64)) })
	}
	for range batches {
		ask(func(ctx context.Context) (any, error) {
			ops := make([]slave.Op, batchLike)
			for i := range ops {
				ops[i] = slave.Op{Kind: slave.OpMkdir, Path: "d"}
			}
			_, err := g.Apply(ctx, &slave.Batch{Ops: ops})
			return nil, err // they are dealt with as they come
		})
	}
	for range uploads {
		ask(func(ctx context.Context) (any, error) { return g.Begin(ctx, &slave.Upload{Size: 1 << 40}) })
		ask(func(ctx context.Context) (any, error) { return g.Write(ctx, &slave.Segment{}) })
	}
	ask(func(ctx context.Context) (any, error) { return g.Groups(ctx, 10_000) })
	asked.Wait()
	close(all)
	over.Wait()
}
