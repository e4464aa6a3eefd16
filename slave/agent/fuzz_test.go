package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"sync"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, head{kind: frameEnd, id: 300, more: true}, func(b []byte) []byte { return append(b, "body"...) }))
	f.Add([]byte{0, 0, 0, 3, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReceiver(bytes.NewReader(b))
		for read := 0; ; {
			fr, err := r.next()
			if err != nil {
				if cap(r.buf) > 2*max(len(b), firstStep) {
					t.Fatalf("%d bytes allocated for %d", cap(r.buf), len(b))
				}
				return
			}
			again, err := parseFrame(appendFrame(nil, fr.head, func(b []byte) []byte { return append(b, fr.body...) })[4:])
			if err != nil || again.head != fr.head || !bytes.Equal(again.body, fr.body) {
				t.Fatalf("%+v came back as %+v, %v", fr, again, err)
			}
			if read += 4 + len(r.buf); read > len(b) {
				t.Fatal("read more than there was")
			}
		}
	})
}

func FuzzDecodeOps(f *testing.F) {
	op := putOp("path", nil)
	op.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: []byte("v")}}
	op.Record = fullRecord
	f.Add(appendOp(appendOp(nil, &op), &slave.Op{Kind: slave.OpMkdir, Path: "d", In: xtime.GFID{2}, Expect: xtime.GFID{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		batch, _, err := decodeBatch(frame{body: b})
		if err != nil {
			if !errors.Is(err, errMalformed) {
				t.Fatal(err)
			}
			return
		}
		var again []byte
		for i := range batch.Ops {
			if err := checkOp(&batch.Ops[i]); err != nil {
				t.Fatal(err)
			}
			again = appendOp(again, &batch.Ops[i])
		}
		second, _, err := decodeBatch(frame{body: again})
		if err != nil || !reflect.DeepEqual(batch, second) {
			t.Fatalf("%+v came back as %+v, %v", batch, second, err)
		}
	})
}

// FuzzAnswers decodes each kind of answer from the same bytes.
func FuzzAnswers(f *testing.F) {
	f.Add(appendResult(nil, &slave.Result{Err: &slave.PathError{Op: "o", Path: "p", Err: slave.ErrSource}}))
	f.Add(appendEntry(appendDirState(nil, &slave.DirState{}), &slave.EntryState{Name: "n"}))
	info := testInfo()
	f.Add(appendInfo(nil, &info))
	f.Add(appendWelcome(nil, &welcome{info: info, token: Token{1}, noMore: errOneStream}))
	hello := testHello()
	f.Add(appendHello(nil, &hello))
	hello.Inspect = true
	f.Add(appendHello(nil, &hello))
	f.Add(appendDetail(nil, slave.Detail{EntryState: slave.EntryState{Kind: slave.Symlink, Target: "t"}, Ino: 1 << 40}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, get := range []func(*decoder){
			func(d *decoder) { d.result() }, func(d *decoder) { d.found() }, func(d *decoder) { d.hash() },
			func(d *decoder) { d.group() }, func(d *decoder) { d.info() }, func(d *decoder) { d.hello() },
			func(d *decoder) { d.welcome() }, func(d *decoder) { d.detail() }, func(d *decoder) { d.piece() },
			func(d *decoder) { d.contentEnd() }, func(d *decoder) { d.query() },
			func(d *decoder) {
				var states []slave.DirState
				take := takeStates()
				for d.more() {
					states = take(d, states, 100)
				}
			},
		} {
			d := &decoder{b: b}
			get(d)
			if err := d.end(); err != nil && !errors.Is(err, errMalformed) {
				t.Fatal(err)
			}
		}
	})
}

// script streams read what they were made of and swallow what is written.
type canned struct {
	io.Reader
	once   sync.Once
	closed chan struct{}
}

func newCanned(parts ...[]byte) *canned {
	return &canned{Reader: bytes.NewReader(bytes.Join(parts, nil)), closed: make(chan struct{})}
}

func (c *canned) Write(p []byte) (int, error) { return len(p), nil }
func (c *canned) Close() error                { c.once.Do(func() { close(c.closed) }); return nil }

func clientOpening() []byte {
	hello := testHello()
	return appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
		func(b []byte) []byte { return appendHello(b, &hello) })
}

func serverOpening() []byte {
	info := testInfo()
	return appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameWelcome},
		func(b []byte) []byte { return appendWelcome(b, &welcome{info: info}) })
}

// batchFrames is a batch of one file, as a client sends it.
func batchFrames(id uint64) []byte {
	op := putOp("a", nil)
	b := appendFrame(nil, head{kind: frameBatch, id: id}, func(b []byte) []byte { return appendOp(b, &op) })
	b = appendFrame(b, head{kind: frameData, id: id}, func(b []byte) []byte { return append(b, 0, 'x') })
	return appendFrame(b, head{kind: frameEnd, id: id}, func(b []byte) []byte { return append(b, 1, 0) })
}

// FuzzJoin decodes what another process of the slave's host says.
func FuzzJoin(f *testing.F) {
	hello := testHello()
	hello.Stream, hello.Token = 3, Token{1, 2, 3}
	f.Add(appendJoin(nil, &hello))
	f.Add(appendJoin(nil, &hello)[:3])
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeJoin(b)
		if err != nil {
			if !errors.Is(err, errMalformed) && !errors.Is(err, slave.ErrVersion) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeJoin(appendJoin(nil, h))
		if err != nil || *again != *h || h.Stream == 0 {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}

func FuzzServer(f *testing.F) {
	survey := appendFrame(nil, head{kind: frameSurvey, id: 2}, func(b []byte) []byte { return appendQuery(b, slave.Query{Path: "x"}) })
	f.Add(append(batchFrames(1), survey...), true)
	f.Add(append(batchFrames(1)[:60], survey...), false)
	f.Add(batchFrames(1)[:40], false)
	f.Add(appendFrame(nil, head{kind: frameSurvey, id: 3}, func(b []byte) []byte {
		return appendQuery(b, slave.Query{Path: "x", ByName: true, Names: []string{"a", "b\xff"}})
	}), true)
	for kind := frameSurvey; kind <= frameDigest; kind++ {
		f.Add(appendFrame(nil, head{kind: kind, id: 1}, func(b []byte) []byte { return append(b, 1) }), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, stage bool) {
		for _, opening := range [][]byte{nil, clientOpening()} {
			tree := newFake()
			var served slave.Tree = tree
			if !stage {
				served = applyOnly{tree}
			}
			stream := newCanned(opening, b)
			_ = Serve(context.Background(), stream, "v", func(Hello) (slave.Reader, error) { return served, nil })
			<-stream.closed
			if opening != nil {
				<-tree.closed
			}
		}
	})
}

func FuzzClient(f *testing.F) {
	results := appendFrame(nil, head{kind: frameResults, id: 1}, func(b []byte) []byte { return appendResult(b, &slave.Result{}) })
	states := appendFrame(nil, head{kind: frameStates, id: 2}, func(b []byte) []byte { return appendDirState(b, &slave.DirState{}) })
	f.Add(append(results, states...))
	f.Add(appendFrame(nil, head{kind: frameFailure, id: 1}, errorBody(errBoom)))
	f.Add(appendFrame(nil, head{kind: frameBye}, errorBody(errBoom)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := Dial(context.Background(), newCanned(b), testHello()); err == nil {
			c.Close()
		}
		c, err := Dial(context.Background(), newCanned(serverOpening(), b), testHello())
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		ctx := context.Background()
		wg.Go(func() { _, _ = c.Apply(ctx, &slave.Batch{Ops: []slave.Op{putOp("a", []byte("x"))}}) })
		wg.Go(func() { _, _ = c.Survey(ctx, []slave.Query{{}}) })
		wg.Go(func() { _, _ = c.Hash(ctx, []string{"a"}) })
		wg.Wait()
		if _, err := c.Groups(ctx, 1<<20); err == nil && c.Err() == nil {
			<-c.Done()
		}
		c.Close()
	})
}
