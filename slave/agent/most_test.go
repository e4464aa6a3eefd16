package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"georep/marker/xtime"
	"georep/slave"
)

// For each message, in each direction: the most that it may hold is taken, and one more ends the session with a line that says so.

// asideFake is a fake that can be examined.
type asideFake struct{ *fakeTree }

func (asideFake) Examine(_ context.Context, _ slave.Nonce, paths []string) ([]slave.Detail, error) {
	return make([]slave.Detail, len(paths)), nil
}

func (f asideFake) Digest(ctx context.Context, _ slave.Nonce, paths []string) ([]slave.HashResult, error) {
	return f.Hash(ctx, paths)
}

func (asideFake) Distrust(_ context.Context, paths []string) ([]slave.Result, error) {
	return make([]slave.Result, len(paths)), nil
}

func times(n int, item []byte) []byte { return bytes.Repeat(item, n) }

func strOf(n int) []byte { return appendStr(nil, times(n, []byte("x"))) }

func joinBytes(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// opWith encodes an operation.
func opWith(change func(*slave.Op)) []byte {
	op := slave.Op{Kind: slave.OpMeta, Entry: slave.File, Path: "p"}
	change(&op)
	return appendOp(nil, &op)
}

func xattrsOf(n, size int) []slave.Xattr {
	all := make([]slave.Xattr, n)
	for i := range all {
		all[i] = slave.Xattr{Name: "user.x", Value: make([]byte, size)}
	}
	return all
}

func withXattrs(n, size int) []byte {
	return opWith(func(op *slave.Op) { op.Meta.Xattrs = xattrsOf(n, size) })
}

// filled is a batch whose frame has n bytes.
func filled(n int) []byte {
	b := joinBytes(times(3, withXattrs(16, maxValue)), withXattrs(15, maxValue))
	for left := n - frameOverhead - len(b); left > 0; left = n - frameOverhead - len(b) {
		empty := len(opWith(func(op *slave.Op) { op.Path = strings.Repeat("p", 1<<14) })) - 1<<14
		path := left - empty
		if left > 1<<15 {
			path = 1 << 14
		}
		b = append(b, opWith(func(op *slave.Op) { op.Path = strings.Repeat("p", path) })...)
	}
	return b
}

// frameOverhead is what a frame has before its body, where the id is small.
const frameOverhead = 3

func sized(n int, ends byte) []byte { return append(make([]byte, n), ends) }

// tooMuch is a message at its bound, and beyond.
type tooMuch struct {
	kind       frameKind
	most, more []byte
	says       string
	place      int // 0: a request; 1: content of the batch of one file; 2: of no request
}

func requestsAtTheirBounds() map[string]tooMuch {
	query := func(names, size int) []byte {
		q := appendQuery(nil, slave.Query{Path: "p", ByName: true, Names: make([]string, names)})
		return joinBytes(q[:len(q)-names], times(names, strOf(size)))
	}
	nonce := make([]byte, 16)
	upload := make([]byte, 32)
	part := joinBytes([]byte{partCopy}, []byte{1, 1, 1})
	segment := func(parts []byte) []byte { return joinBytes(upload, []byte{0, 9}, parts) }
	data := func(n int) []byte { return joinBytes([]byte{partData, 0}, strOf(n)) }
	abort := func(n int) []byte { return joinBytes([]byte{errPlain, 0, 0}, strOf(n)) }
	failed := func(op, path int) []byte { return joinBytes([]byte{errPath}, strOf(op), strOf(path), []byte{0, 0, 0}) }
	count := func(n int) []byte { return append([]byte{9}, strOf(n)...) }
	return map[string]tooMuch{
		"survey, questions":    {frameSurvey, times(maxItems, query(0, 0)), times(maxItems+1, query(0, 0)), "more than 1024 items", 0},
		"survey, names":        {frameSurvey, times(4, query(4096, 1)), append(times(4, query(4096, 1)), query(1, 1)...), "more than 16384 names", 0},
		"survey, names of one": {frameSurvey, query(4096, 255), query(4097, 255), "at most 4097", 0},
		"survey, a name":       {frameSurvey, query(1, 255), query(1, 256), "at most 255", 0},
		"survey, a path":       {frameSurvey, append(strOf(maxPath), 0, 0, 0), append(strOf(maxPath+1), 0, 0, 0), "at most 1048576", 0},
		"find":                 {frameFind, make([]byte, 16*maxGFIDs), make([]byte, 16*(maxGFIDs+1)), "more than 4096 items", 0},
		"hash":                 {frameHash, times(maxItems, strOf(1)), times(maxItems+1, strOf(1)), "more than 1024 items", 0},
		"hash, a path":         {frameHash, strOf(maxPath), strOf(maxPath + 1), "at most 1048576", 0},
		"hash, all":            {frameHash, times(2, strOf(maxPath)), times(3, strOf(maxPath)), "a request of kind 18", 0},
		"count":                {frameCount, append([]byte{9}, times(maxItems, strOf(1))...), append([]byte{9}, times(maxItems+1, strOf(1))...), "more than 1024 items", 0},
		"count, a path":        {frameCount, count(maxPath), count(maxPath + 1), "at most 1048576", 0},
		"groups":               {frameGroups, binary.AppendUvarint(nil, maxGroups), binary.AppendUvarint(nil, maxGroups+1), "at most 65536", 0},
		"clean":                {frameClean, []byte{0}, []byte{0, 0}, "1 bytes left over", 0},
		"begin":                {frameBegin, joinBytes(upload, []byte{9}, strOf(maxPath)), joinBytes(upload, []byte{9}, strOf(maxPath+1)), "at most 1048576", 0},
		"sign":                 {frameSign, make([]byte, 49), make([]byte, 50), "1 bytes left over", 0},
		"write, parts":         {frameWrite, segment(times(slave.MaxSegmentParts, part)), segment(times(slave.MaxSegmentParts+1, part)), "a segment of 8193 parts", 0},
		"write, data":          {frameWrite, segment(data(slave.MaxSegmentData)), segment(data(slave.MaxSegmentData + 1)), "at most 1048576", 0},
		"write, data of all":   {frameWrite, segment(times(2, data(slave.MaxSegmentData/2))), segment(append(times(2, data(slave.MaxSegmentData/2)), data(1)...)), "with 1048577 bytes", 0},
		"examine":              {frameExamine, joinBytes(nonce, times(maxDetails, strOf(1))), joinBytes(nonce, times(maxDetails+1, strOf(1))), "more than 512 items", 0},
		"digest":               {frameDigest, joinBytes(nonce, times(maxItems, strOf(1))), joinBytes(nonce, times(maxItems+1, strOf(1))), "more than 1024 items", 0},
		"distrust":             {frameDistrust, times(maxItems, strOf(1)), times(maxItems+1, strOf(1)), "more than 1024 items", 0},
		"batch, operations":    {frameBatch, times(slave.MaxOps, withXattrs(0, 0)), times(slave.MaxOps+1, withXattrs(0, 0)), "more than 1024 operations", 0},
		"batch, xattrs":        {frameBatch, times(4, withXattrs(1024, 1)), append(times(4, withXattrs(1024, 1)), withXattrs(1, 1)...), "more than 4096 xattrs", 0},
		"batch, xattrs of one": {frameBatch, withXattrs(1024, 1), withXattrs(1025, 1), "at most 1024", 0},
		"batch, an xattr":      {frameBatch, withXattrs(1, maxValue), withXattrs(1, maxValue+1), "at most 65536", 0},
		"batch, all":           {frameBatch, filled(maxFrame), filled(maxFrame + 1), "a frame of 4194305 bytes", 0},
		"data":                 {frameData, append([]byte{0}, make([]byte, maxData)...), append([]byte{0}, make([]byte, maxData+1)...), "a piece of 262145 bytes", 1},
		"data, the frame":      {frameData, append([]byte{0}, make([]byte, maxData)...), append([]byte{0}, make([]byte, maxData+64)...), "a frame of kind 24", 1},
		"end":                  {frameEnd, []byte{0, 0}, []byte{0, 0, 0}, "1 bytes left over", 1},
		"abort":                {frameAbort, abort(maxText), abort(maxText + 1), "at most 2048", 1},
		"abort, what failed":   {frameAbort, failed(maxErrOp, 1), failed(maxErrOp+1, 1), "at most 64", 1},
		"abort, where it did":  {frameAbort, failed(1, maxErrPath), failed(1, maxErrPath+1), "at most 1024", 1},
		"alive":                {frameAlive, nil, make([]byte, maxContent), "a frame of kind 4", 2},
		"cancel":               {frameCancel, nil, make([]byte, maxContent), "a frame of kind 23", 2},
	}
}

func TestMostThatAClientMaySend(t *testing.T) {
	for name, c := range requestsAtTheirBounds() {
		for k, sent := range [][]byte{c.most, c.more} {
			said, served := c.send(t, sent)
			switch more := k == 1; {
			case !more && (served != nil || strings.Contains(said, "malformed")):
				t.Errorf("%s: the most was refused: %v, %s", name, served, said)
			case more && (!errors.Is(served, errMalformed) || !strings.Contains(served.Error(), c.says) || said != served.Error()[len("serve a session: "):]):
				t.Errorf("%s: one more: Serve returned %v, and the client was told %q", name, served, said)
			case strings.Contains(said, "\n"):
				t.Errorf("%s: %q is more than a line", name, said)
			}
		}
	}
}

// send sends a message and ends the session. It returns what the server said in the end, and how it ended.
func (c *tooMuch) send(t *testing.T, body []byte) (said string, served error) {
	hello := testHello()
	hello.Inspect = c.kind == frameExamine || c.kind == frameDigest || c.kind == frameDistrust
	b := appendFrame(preface{protocol: Protocol}.append(nil), head{kind: frameHello},
		func(b []byte) []byte { return appendHello(b, &hello) })
	message := func(b []byte) []byte { return append(b, body...) }
	switch id := uint64(1); c.place {
	case 0:
		b = appendFrame(b, head{kind: c.kind, id: id}, message)
	case 1:
		op := putOp("a", nil)
		b = appendFrame(b, head{kind: frameBatch, id: id}, func(b []byte) []byte { return appendOp(b, &op) })
		b = appendFrame(b, head{kind: c.kind, id: id}, message)
		if c.kind == frameData {
			b = appendFrame(b, head{kind: frameEnd, id: id}, func(b []byte) []byte { return append(b, 0, 0) })
		}
	default:
		b = appendFrame(b, head{kind: c.kind}, message)
		b = appendFrame(b, head{kind: frameClean, id: id}, func(b []byte) []byte { return append(b, 0) })
	}
	near, far := net.Pipe()
	end := make(chan error, 1)
	go func() {
		end <- Serve(context.Background(), far, "v", func(Hello) (slave.Reader, error) { return asideFake{newFake()}, nil })
	}()
	go near.Write(b)
	said = lastWords(t, near)
	return said, <-end
}

// lastWords reads what a server says until it ends, or has answered.
func lastWords(t *testing.T, rw net.Conn) (said string) {
	r := newReceiver(rw)
	defer rw.Close()
	if err := findMagic(r.r); err != nil {
		t.Fatal(err)
	}
	if _, err := readPreface(r.r); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.next()
		if err != nil {
			return ""
		}
		d := decoder{b: f.body}
		switch {
		case f.kind == frameBye || f.kind == frameFailure:
			return d.someError().Error()
		case f.kind >= frameStates && !f.more:
			return ""
		}
	}
}

// answersAtTheirBounds are what a server may say to each call. more may be several frames.
func answersAtTheirBounds() map[string]struct {
	ask        func(context.Context, *Client) error
	kind       frameKind
	most, more []byte
	says       string
} {
	type answer = struct {
		ask        func(context.Context, *Client) error
		kind       frameKind
		most, more []byte
		says       string
	}
	survey := func(ctx context.Context, c *Client) error {
		_, err := c.Survey(ctx, make([]slave.Query, 2))
		return err
	}
	find := func(ctx context.Context, c *Client) error {
		_, err := c.Find(ctx, make([]xtime.GFID, 4096))
		return err
	}
	hash := func(ctx context.Context, c *Client) error { _, err := c.Hash(ctx, []string{"a"}); return err }
	count := func(ctx context.Context, c *Client) error { _, err := c.Count(ctx, []string{"a"}, 9); return err }
	groups := func(ctx context.Context, c *Client) error { _, err := c.Groups(ctx, maxGroups); return err }
	begin := func(ctx context.Context, c *Client) error {
		_, err := c.Begin(ctx, &slave.Upload{Size: 1 << 40})
		return err
	}
	sums := func(ctx context.Context, c *Client) error {
		_, err := c.Sums(ctx, slave.SumsQuery{}, func(int64, []byte) error { return nil })
		return err
	}
	write := func(ctx context.Context, c *Client) error { _, err := c.Write(ctx, &slave.Segment{}); return err }
	examine := func(ctx context.Context, c *Client) error {
		_, err := c.Examine(ctx, slave.Nonce{}, []string{"a"})
		return err
	}
	distrust := func(ctx context.Context, c *Client) error { _, err := c.Distrust(ctx, []string{"a"}); return err }
	apply := func(ctx context.Context, c *Client) error {
		_, err := c.Apply(ctx, &slave.Batch{Ops: []slave.Op{{Kind: slave.OpMkdir, Path: "d"}}})
		return err
	}
	clean := func(ctx context.Context, c *Client) error { return c.Clean(ctx, 0) }
	dir := appendDirState(nil, &slave.DirState{})
	entry := func(name, target int) []byte {
		return appendEntry(nil, &slave.EntryState{Name: strings.Repeat("n", name), Kind: slave.Symlink, Target: strings.Repeat("t", target)})
	}
	found := func(n int) []byte { return appendFound(nil, slave.Found{Path: strings.Repeat("p", n)}) }
	result := func(text int) []byte { return joinBytes([]byte{0, 0, errPlain, 0, 0}, strOf(text)) }
	group := func(names, size int) []byte {
		g := slave.Group{}
		for range names {
			g.Names = append(g.Names, strings.Repeat("p", size))
		}
		return appendGroup(nil, g)
	}
	ranges := func(n int) []byte {
		b := appendUploadState(nil, &slave.UploadState{})
		for i := range int64(n) {
			b = appendRange(b, slave.Range{Off: 2 * i, End: 2*i + 1})
		}
		return b
	}
	piece := func(n int) []byte {
		return appendResult(append(joinBytes([]byte{sumsPiece, 0}, strOf(n)), sumsResult), &slave.Result{})
	}
	detail := func(n int) []byte { return appendDetailOf(n) }
	const whole = (slave.MaxSurvey - slave.ItemCost) / (slave.ItemCost + 255 + maxTarget) // entries that go into one answer
	weighty := append(dir, times(whole, entry(255, maxTarget))...)
	full := slave.MaxFound / (slave.ItemCost + 1<<14)
	grouped := slave.MaxGroups / (slave.ItemCost + 64*(32+1000))
	return map[string]answer{
		"states, entries":       {survey, frameStates, append(dir, times(slave.MaxEntries, entry(1, 0))...), append(dir, times(slave.MaxEntries+1, entry(1, 0))...), "item 2 after 1 of 2"},
		"states, weight":        {survey, frameStates, weighty, append(bytes.Clone(weighty), entry(255, maxTarget)...), "answer to a survey is beyond 3145728 bytes"},
		"states, directories":   {survey, frameStates, times(2, dir), times(3, dir), "item 1 after 2 of 2"},
		"states, a target":      {survey, frameStates, append(dir, entry(1, maxTarget)...), append(dir, entry(1, maxTarget+1)...), "at most 4096"},
		"states, a name":        {survey, frameStates, append(dir, entry(255, 0)...), append(dir, entry(256, 0)...), "at most 255"},
		"found, weight":         {find, frameFound, times(full, found(1<<14)), times(full+1, found(1<<14)), "answer to a find is beyond 1048576 bytes"},
		"found, items":          {find, frameFound, times(4096, found(0)), times(4097, found(0)), "more than the 4096 answers"},
		"found, a path":         {find, frameFound, found(slave.MaxFoundPath), found(slave.MaxFoundPath + 1), "at most 65536"},
		"sums":                  {hash, frameSums, appendHash(nil, slave.HashResult{}), times(2, appendHash(nil, slave.HashResult{})), "more than the 1 answers"},
		"counted":               {count, frameCounted, []byte{1}, []byte{1, 1}, "more than the 1 answers"},
		"grouped, weight":       {groups, frameGrouped, times(grouped, group(64, 1000)), times(grouped+1, group(64, 1000)), "answer to a groups is beyond 2097152 bytes"},
		"grouped, names":        {groups, frameGrouped, group(64, 1), group(65, 1), "at most 64"},
		"grouped, a name":       {groups, frameGrouped, group(1, slave.MaxFoundPath), group(1, slave.MaxFoundPath+1), "at most 65536"},
		"begun, ranges":         {begin, frameBegun, ranges(slave.MaxRanges), ranges(slave.MaxRanges + 1), "answer to a begin is beyond 8192 ranges"},
		"begun, an empty range": {begin, frameBegun, ranges(1), append(ranges(1), 5, 5), "a range from 5 to 5"},
		"signed":                {sums, frameSigned, piece(slave.MaxSums), piece(slave.MaxSums + 1), "at most 262144"},
		"written":               {write, frameWritten, result(maxText), result(maxText + 1), "at most 2048"},
		"results":               {apply, frameResults, result(maxText), result(maxText + 1), "at most 2048"},
		"results, items":        {apply, frameResults, result(1), times(2, result(1)), "bytes left over"},
		"examined":              {examine, frameExamined, detail(maxTarget), detail(maxTarget + 1), "at most 4096"},
		"distrusted":            {distrust, frameDistrusted, result(1), times(2, result(1)), "more than the 1 answers"},
		"cleaned":               {clean, frameCleaned, nil, []byte{0}, "1 bytes left over"},
		"a frame":               {sums, frameSigned, piece(slave.MaxSums), sized(maxAnswer, 0), "a frame of"},
	}
}

// appendDetailOf encodes a detail with a target of n bytes, which may be too many.
func appendDetailOf(n int) []byte {
	b := appendDetail(nil, slave.Detail{EntryState: slave.EntryState{Kind: slave.Symlink}})
	tail := 2*slave.HashSize + 1
	return joinBytes(b[:len(b)-tail-1], strOf(n), b[len(b)-tail:])
}

func TestMostThatAServerMaySay(t *testing.T) {
	for name, c := range answersAtTheirBounds() {
		for k, body := range [][]byte{c.most, c.more} {
			near, far := net.Pipe()
			go answerOnce(far, c.kind, body)
			client, err := Dial(context.Background(), near, testHello())
			if err != nil {
				t.Fatal(err)
			}
			err = c.ask(context.Background(), client)
			switch {
			case k == 0 && err != nil:
				t.Errorf("%s: the most was refused: %v", name, err)
			case k == 1 && (!errors.Is(err, errMalformed) || !strings.Contains(err.Error(), c.says) || client.Err() == nil):
				t.Errorf("%s: one more: %v", name, err)
			case k == 1 && strings.Contains(err.Error(), "\n"):
				t.Errorf("%s: %q is more than a line", name, err)
			}
			client.Close()
		}
	}
}

// answerOnce plays a server that answers the first request, in as many frames as are needed where it is a list.
func answerOnce(rw io.ReadWriteCloser, kind frameKind, body []byte) {
	rw.Write(serverOpening())
	r := newReceiver(rw)
	r.r.Discard(len(preface{version: "1.2.3"}.append(nil)))
	r.next()
	for {
		f, err := r.next()
		if err != nil {
			return
		}
		if f.kind == frameAlive {
			continue
		}
		rw.Write(inFrames(kind, f.id, body))
		io.Copy(io.Discard, rw)
		return
	}
}

// inFrames cuts a list between items, as far as that is needed to send it.
func inFrames(kind frameKind, id uint64, body []byte) (b []byte) {
	const atMost = maxAnswer - 16
	for kind != frameSigned && len(body) > atMost {
		n := itemsWithin(kind, body, atMost)
		b = appendFrame(b, head{kind: kind, id: id, more: true}, func(b []byte) []byte { return append(b, body[:n]...) })
		body = body[n:]
	}
	return appendFrame(b, head{kind: kind, id: id}, func(b []byte) []byte { return append(b, body...) })
}

// itemsWithin is the length of whole items.
func itemsWithin(kind frameKind, body []byte, most int) (n int) {
	d := decoder{b: body}
	for d.more() {
		switch kind {
		case frameStates:
			if d.u8() == itemDir {
				d.dirState()
			} else {
				d.entry()
			}
		case frameFound:
			d.found()
		default:
			d.group()
		}
		if len(body)-len(d.b) > most || d.err != nil {
			break
		}
		n = len(body) - len(d.b)
	}
	return n
}
