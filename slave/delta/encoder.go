package delta

import (
	"math"
)

// Encoder turns a new file into instructions. It has one user at a time.
//
// It goes along the file with a position, pos, and what it has not sent of what lies before, from lit on. At each
// position it looks for a block of the basis that equals the bytes from there on:
//
//   - After a block was found, and at the beginning of a run, without rolling: is it the block that follows in the
//     basis, or the one that has the same offset there?
//   - Else with the rolling sum, which from then on goes along until a block is found.
//   - The basis' short last block is tried where it is expected, and where it would end a run's data.
//
// Runs are those of window. What was found, or not, becomes instructions only where it is data.
type Encoder struct {
	window
	index   *Index
	sums    *sums
	leaving *[256]uint64
	failed  error // the error that every further call returns

	lit, pos int64
	warm     bool   // rolled is the weak sum of the block from pos on, and that is not in the index
	rolled   uint64 // neither canonical nor shortened
	// expected is the block of the basis that follows on the last one found, if pos is at expectedAt.
	expected, expectedAt int64

	copying Instruction   // not yet sent, for the next may continue it; Len 0: none
	out     []Instruction // to be returned; out[:sent] are
	sent    int
}

// NewEncoder seals the index and reads new content from source.
func NewEncoder(index *Index, source Source) (*Encoder, error) {
	e := &Encoder{}
	if err := e.Reset(index, source); err != nil {
		return nil, err
	}
	return e, nil
}

// Reset makes the encoder as NewEncoder would, for another file, and keeps its memory.
func (e *Encoder) Reset(index *Index, source Source) error {
	sums := e.sums
	if sums == nil || e.index.key != index.key {
		var err error
		if sums, err = newSums(index.key); err != nil {
			return err
		}
	}
	index.Seal()
	w := e.window
	w.reset(source, index.shape.Block)
	*e = Encoder{window: w, index: index, sums: sums, leaving: sums.leaving(index.shape.Block), expectedAt: -1,
		out: e.out[:0]}
	return nil
}

// Next returns the next instruction, and io.EOF after the last. Its data are valid until the following call. Any other
// error is the source's, and no call returns anything else after it.
func (e *Encoder) Next() (Instruction, error) {
	for e.sent == len(e.out) {
		if e.failed != nil {
			return Instruction{}, e.failed
		}
		e.out, e.sent = e.out[:0], 0
		e.failed = e.step()
	}
	e.sent++
	return e.out[e.sent-1], nil
}

// step goes on by one match, or by what there is in the buffer. It may put out any number of instructions; they refer
// to the buffer, so it is not called before all of them were returned.
func (e *Encoder) step() error {
	if e.fresh {
		return e.nextRun()
	}
	ahead := e.block
	if e.warm {
		ahead++ // the byte that rolls in
	}
	to := int64(math.MaxInt64) // less than a block is left before that
	if e.pos <= math.MaxInt64-ahead {
		to = e.pos + ahead
	}
	if err := e.fill(e.lit, to); err != nil {
		return err
	}
	switch {
	case !e.warm && e.direct():
	case e.tailHere():
	case e.end()-e.pos < ahead:
		e.endRun()
	case !e.warm:
		e.start()
	default:
		e.scan()
	}
	return nil
}

func (e *Encoder) nextRun() error {
	if err := e.begin(); err != nil {
		e.flush()
		return err
	}
	e.lit, e.pos, e.warm = e.base, e.base, false
	return nil
}

// direct tries the blocks that are likely to be at pos, without rolling.
func (e *Encoder) direct() bool {
	var strong [StrongSize]byte
	hashed := 0 // bytes that strong is of
	try := func(n int64) bool {
		b := e.index.block(n)
		if b == nil {
			return false
		}
		length := e.index.shape.length(n)
		if e.end()-e.pos < int64(length) {
			return false
		}
		if hashed != length {
			strong, hashed = e.sums.strong(e.bytes(e.pos, e.pos+int64(length))), length
		}
		if strong != b.Strong {
			return false
		}
		e.match(n, length)
		return true
	}
	follows := e.expectedAt == e.pos
	if follows && try(e.expected) {
		return true
	}
	n := e.pos / e.block
	return e.pos%e.block == 0 && (!follows || n != e.expected) && try(n)
}

// tailAt is where the short last block of the basis would end the run's data; -1 if that is not known, or too late.
func (e *Encoder) tailAt() int64 {
	if !e.final || e.index.tail() == nil {
		return -1
	}
	if at := e.dataEnd() - int64(e.index.shape.tail()); at >= e.pos {
		return at
	}
	return -1
}

// tailHere tries the short last block if the run's data end with its length.
func (e *Encoder) tailHere() bool {
	if e.tailAt() != e.pos {
		return false
	}
	length := e.index.shape.tail()
	if e.sums.strong(e.bytes(e.pos, e.pos+int64(length))) != e.index.tail().Strong {
		return false
	}
	e.match(e.index.shape.Blocks()-1, length)
	return true
}

// endRun is for a rest that has no whole block that was not looked at.
func (e *Encoder) endRun() {
	if at := e.tailAt(); at > e.pos {
		e.pos, e.warm = at, false
		return
	}
	e.data(e.end())
	e.fresh = true
}

// start begins to roll at pos, and looks there.
func (e *Encoder) start() {
	e.warm = true
	if e.index.full == 0 {
		return
	}
	e.rolled = e.sums.polynomial(e.bytes(e.pos, e.pos+e.block))
	e.lookup(shorten(e.rolled))
}

// scan goes on until a block is found, or the buffer's end, or there is something else to be done.
func (e *Encoder) scan() {
	limit := e.lit + min(e.end()-e.block-e.lit, MaxData)
	if at := e.tailAt(); at > e.pos {
		limit = min(limit, at)
	}
	if e.index.full == 0 {
		e.pos = limit
	} else if e.roll(limit) {
		return
	}
	if e.pos-e.lit >= MaxData {
		e.data(e.pos)
		e.lit = e.pos
	}
}

// roll moves the rolling sum up to limit and says whether it stopped at a block that was found. This is the loop that
// decides how quick new content is.
func (e *Encoder) roll(limit int64) bool {
	in := e.bytes(e.pos+e.block, limit+e.block)
	out := e.bytes(e.pos, limit)[:len(in)]
	h, point, leaving, filter := e.rolled, e.sums.point, e.leaving, e.index.filter
	start := e.pos
	for i, c := range in {
		h = step(h, point, leaving[out[i]]+uint64(c))
		if w := shorten(h); filter.get(w) {
			if e.pos = start + int64(i) + 1; e.lookup(w) {
				return true
			}
		}
	}
	e.pos, e.rolled = limit, h
	return false
}

// lookup finds the block at pos, of which weak is the sum, and takes it if it is there.
func (e *Encoder) lookup(weak uint64) bool {
	if !e.index.has(weak) {
		return false
	}
	b := Block{Weak: weak, Strong: e.sums.strong(e.bytes(e.pos, e.pos+e.block))}
	n, ok := e.index.find(b)
	if ok {
		e.match(e.prefer(n, b), int(e.block))
	}
	return ok
}

// prefer chooses among the blocks with the same sums, of which n is the first: the one at the same offset, else the
// one that was moved as far as the block found before.
func (e *Encoder) prefer(n int64, b Block) int64 {
	is := func(n int64) bool {
		c := e.index.block(n)
		return c != nil && *c == b && e.index.shape.length(n) == int(e.block)
	}
	if n := e.pos / e.block; e.pos%e.block == 0 && is(n) {
		return n
	}
	if past := e.pos - e.expectedAt; e.expectedAt >= 0 && past%e.block == 0 && is(e.expected+past/e.block) {
		return e.expected + past/e.block
	}
	return n
}

// match takes block n of the basis, of length bytes, for what is at pos.
func (e *Encoder) match(n int64, length int) {
	e.data(e.pos)
	to := e.pos + int64(length)
	from := n*e.block - e.pos // in the basis, of offset 0
	e.clip(to, func(at, end int64) { e.copy(at, end-at, from+at) })
	e.pos, e.lit, e.warm = to, to, false
	e.expected, e.expectedAt = n+1, to
}

// data puts out the data from lit to an offset.
func (e *Encoder) data(to int64) {
	e.clip(to, func(at, end int64) {
		e.flush()
		for at < end {
			n := min(end-at, MaxData)
			e.out = append(e.out, Instruction{Off: at, Len: n, Data: e.bytes(at, at+n)})
			at += n
		}
	})
}

// copy takes n bytes at off from the basis, and joins that to the copy before if it can.
func (e *Encoder) copy(off, n, from int64) {
	c := &e.copying
	if c.Len > 0 && c.Off+c.Len == off && c.From+c.Len == from && c.Len+n <= MaxCopy {
		c.Len += n
		return
	}
	e.flush()
	e.copying = Instruction{Off: off, Len: n, From: from}
}

// flush puts out the copy that waited for its continuation.
func (e *Encoder) flush() {
	if e.copying.Len > 0 {
		e.out = append(e.out, e.copying)
		e.copying = Instruction{}
	}
}
