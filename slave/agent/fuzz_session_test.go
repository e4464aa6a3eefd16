package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"georep/marker/xtime"
	"georep/slave"
)

// Whole sessions with something wrong in them: what a client, or a server, says in one that is right is recorded, changed as the
// fuzzer says, and played to the other end. That may end the session, or not; it ends in any case, and what was allocated meanwhile
// follows what was sent.

// recording is what one end said behind its opening, frame by frame, without their lengths.
type recording [][]byte

// record keeps what is written to a stream.
type record struct {
	io.ReadWriteCloser
	mu  sync.Mutex
	all bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.all.Write(p)
	r.mu.Unlock()
	return r.ReadWriteCloser.Write(p)
}

// frames leaves out the opening, which is of so many frames.
func (r *record) frames(t testing.TB, opening int) (all recording) {
	b := r.all.Bytes()[len(preface{version: "1.2.3"}.append(nil)):]
	for len(b) > 0 {
		n := int(binary.BigEndian.Uint32(b))
		all, b = append(all, bytes.Clone(b[4:4+n])), b[4+n:]
	}
	return all[opening:]
}

// sessionCalls are one call of each kind, one after the other.
func sessionCalls(ctx context.Context, c *Client) {
	_, _ = c.Survey(ctx, []slave.Query{{Path: "a"}, {Path: "missing"}, {Path: "b", ByName: true, Names: []string{"x", "y"}}})
	_, _ = c.Find(ctx, []xtime.GFID{{1}, {2}, {3}})
	_, _ = c.Hash(ctx, []string{"x", "yy"})
	_, _ = c.Count(ctx, []string{"x"}, 9)
	_, _ = c.Groups(ctx, 3)
	_, _ = c.Begin(ctx, &slave.Upload{GFID: xtime.GFID{1}, Size: 64})
	_, _ = c.Sums(ctx, slave.SumsQuery{Key: [16]byte{1}}, func(int64, []byte) error { return nil })
	_, _ = c.Write(ctx, &slave.Segment{Range: slave.Range{End: 9}, Parts: []slave.Part{{Data: []byte("123456789")}, {Off: 9, Len: 4}}})
	op := putOp("file", pattern(3000))
	op.Meta.Xattrs = []slave.Xattr{{Name: "user.x", Value: []byte("v")}}
	_, _ = c.Apply(ctx, &slave.Batch{Ops: []slave.Op{{Kind: slave.OpMkdir, Path: "d"}, op, {Kind: slave.OpFinish, Path: "d"}, putOp("refuse", nil)}})
	_, _ = c.Examine(ctx, slave.Nonce{1}, []string{"a", "b"})
	_, _ = c.Digest(ctx, slave.Nonce{1}, []string{"a"})
	_, _ = c.Distrust(ctx, []string{"a"})
	_ = c.Clean(ctx, 60)
}

// recorded is what both ends say in a session of all calls.
func recorded(t testing.TB) (client, server recording) {
	a, b := netPipe(t)
	near, far := &record{ReadWriteCloser: a}, &record{ReadWriteCloser: b}
	hello := testHello()
	hello.Inspect = true
	done := make(chan error, 1)
	go func() {
		done <- Serve(context.Background(), far, "1.2.3", func(Hello) (slave.Reader, error) { return asideFake{newFake()}, nil })
	}()
	c, err := Dial(context.Background(), near, hello)
	if err != nil {
		t.Fatal(err)
	}
	sessionCalls(context.Background(), c)
	if err := c.Err(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return near.frames(t, 1), far.frames(t, 1)
}

// changed applies a script of changes, of five bytes each: what, in which frame, where, and a number.
func (r recording) changed(script []byte) (out []byte) {
	frames := make(recording, len(r))
	for i := range r {
		frames[i] = bytes.Clone(r[i])
	}
	for ; len(script) >= 5 && len(frames) > 0; script = script[5:] {
		frames = frames.change(script[0], int(script[1])%len(frames), int(script[2])<<8|int(script[3]), script[4])
	}
	for _, f := range frames {
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(f))), f...)
	}
	return out
}

func (r recording) change(what byte, i, at int, v byte) recording {
	f := r[i]
	if len(f) > 1<<12 || len(r) > 1<<8 {
		return r // it is long enough
	}
	at = min(at%(len(f)+1), len(f))
	switch what % 9 {
	case 0: // a byte is another
		if at < len(f) {
			f[at] = v
		}
	case 1: // it is cut
		r[i] = f[:at]
	case 2: // a huge number
		huge := binary.AppendUvarint(nil, 1<<(v%64))
		r[i] = append(append(bytes.Clone(f[:at]), huge...), f[at:]...)
	case 3: // it comes twice
		r = append(r[:i+1:i+1], r[i:]...)
	case 4: // it does not come
		r = append(r[:i:i], r[i+1:]...)
	case 5: // another comes first
		k := at % len(r)
		r[i], r[k] = r[k], r[i]
	case 6: // a part of it many times
		r[i] = append(bytes.Clone(f), bytes.Repeat(f[at:], int(v)*4)...)
	case 7: // the body of another
		other := r[at%len(r)]
		r[i] = append(bytes.Clone(f[:min(3, len(f))]), other[min(3, len(other)):]...)
	case 8: // more frames of it follow
		if len(f) > 1 {
			f[1] ^= v & 1
		}
	}
	return r
}

// scripts are where the fuzzer begins.
func scripts(f *testing.F) {
	for what := range byte(9) {
		for frame := range byte(16) {
			f.Add([]byte{what, frame, 0, 7 + frame, 31 + 8*what})
		}
		f.Add(bytes.Repeat([]byte{what, 5, 0, 9, 200, 3, 2, 0, 1, 1}, 8))
	}
}

// allocated is how many bytes were, ever.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// within fails where more was allocated for n bytes than they are worth: fixed buffers, and what items take beyond their bytes.
func within(t *testing.T, before uint64, n int) {
	t.Helper()
	const fixed, each = 24 << 20, 400
	if got := allocated() - before; got > fixed+each*uint64(n) {
		t.Errorf("%d bytes were allocated for %d", got, n)
	}
}

func FuzzClientSession(f *testing.F) {
	client, _ := recorded(f)
	scripts(f)
	hello := testHello()
	hello.Inspect = true
	opening := appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
		func(b []byte) []byte { return appendHello(b, &hello) })
	f.Fuzz(func(t *testing.T, script []byte) {
		sent := client.changed(script)
		if len(sent) > 1<<20 {
			return
		}
		before := allocated()
		tree := newFake()
		tree.keep = false
		stream := newCanned(opening, sent)
		_ = Serve(context.Background(), stream, "v", func(Hello) (slave.Reader, error) { return asideFake{tree}, nil })
		<-stream.closed
		<-tree.closed
		within(t, before, len(sent))
	})
}

func FuzzServerSession(f *testing.F) {
	_, server := recorded(f)
	scripts(f)
	f.Fuzz(func(t *testing.T, script []byte) {
		said := server.changed(script)
		if len(said) > 1<<20 {
			return
		}
		before := allocated()
		a, b := netPipe(t)
		hello := testHello()
		hello.Inspect = true
		go sayEach(b, said)
		c, err := Dial(context.Background(), a, hello)
		if err != nil {
			t.Fatal(err)
		}
		sessionCalls(context.Background(), c)
		c.Close()
		within(t, before, len(said))
	})
}

// sayEach says the frames of a server, those of one answer whenever something was asked for.
func sayEach(rw io.ReadWriteCloser, said []byte) {
	defer rw.Close()
	rw.Write(serverOpening())
	asked, over := make(chan struct{}, 1), make(chan struct{})
	defer close(over)
	go func() {
		r := newReceiver(rw)
		r.r.Discard(len(preface{version: "1.2.3"}.append(nil)))
		for {
			f, err := r.next()
			if err != nil {
				close(asked)
				return
			}
			if f.kind >= frameSurvey && f.kind != frameData && f.kind != frameEnd && f.kind != frameAbort && f.kind != frameCancel {
				select {
				case asked <- struct{}{}:
				case <-over:
					return
				}
			}
		}
	}()
	for len(said) > 0 {
		select {
		case _, ok := <-asked:
			if !ok {
				return
			}
		case <-time.After(20 * time.Millisecond): // the one before was no answer
		}
		for last := false; !last && len(said) > 0; {
			n := 4 + int(binary.BigEndian.Uint32(said))
			last = n < 6 || said[5]&flagMore == 0
			if _, err := rw.Write(said[:n]); err != nil {
				return
			}
			said = said[n:]
		}
	}
}
