package compress

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// line is a simulated link: it takes perByte ns for a byte, and a buffer of so many bytes stands before it. Time is ns.
type line struct {
	perByte, buffer float64
	queued, at      float64
}

// copying is what handing a byte over takes at least.
const copying = 0.2

// write gives how long the write of n bytes blocks that begins at now.
func (l *line) write(n int, now float64) float64 {
	l.queued = max(0, l.queued-(now-l.at)/l.perByte)
	takes := max(float64(n)*copying, (l.queued+float64(n)-l.buffer)*l.perByte)
	l.queued = max(0, l.queued+float64(n)-takes/l.perByte)
	l.at = now + takes
	return takes
}

// content is what packing a byte costs, in ns, and what is left of it.
type content struct{ cost, ratio float64 }

var (
	source = content{2.5, 0.19}
	small  = content{3.2, 0.28}
	zeros  = content{0.8, 0.001}
	random = content{0.15, 1.0003}
	poor   = content{3, 0.97}
)

// run is a simulated transfer.
type run struct {
	line line
	now  float64
	last float64
	size int // of each write
	sent struct{ raw, packed int }
	busy *rand.Rand // if not nil other programs take the processor away now and then
}

// starved adds what a busy machine adds to ns of work: a pause of 10 ms for every 3 ms of work, in the mean.
func (r *run) starved(ns float64) float64 {
	if r.busy != nil && r.busy.Float64() < ns/3e6 {
		ns += 10e6
	}
	return ns
}

// send writes total bytes of c; decide and done are those of a policy.
func (r *run) send(c content, total int, decide func() bool, done func(sample)) {
	for n := 0; n < total; n += r.size {
		s := sample{raw: r.size, wire: r.size + headerSize, gap: time.Duration(r.now - r.last)}
		if decide() {
			s.packing = time.Duration(r.starved(c.cost * float64(r.size)))
			s.wire = int(c.ratio*float64(r.size)) + 2*headerSize
			r.sent.packed += r.size
		} else {
			r.sent.raw += r.size
		}
		r.now += float64(s.packing)
		s.writing = time.Duration(r.starved(copying*float64(s.wire)) + r.line.write(s.wire, r.now))
		r.now += float64(s.writing)
		r.last = r.now
		done(s)
	}
	r.now += r.line.queued * r.line.perByte
}

func (r *run) policy(p *policy, c content, total int) { r.send(c, total, p.wantsPacked, p.done) }

// fixed sends everything one way and gives the time.
func fixed(r run, c content, total int, packed bool) float64 {
	r.send(c, total, func() bool { return packed }, func(sample) {})
	return r.now
}

// TestNearTheBest compares the policy with the better of always and never packing, on links of 1 GB/s to 1 MB/s.
func TestNearTheBest(t *testing.T) {
	const total = 512 << 20
	for _, perByte := range []float64{1, 3, 10, 83, 1000} {
		for _, buffer := range []float64{0, 8 << 20} {
			for name, c := range map[string]content{"source": source, "small": small, "zeros": zeros, "random": random,
				"poor": poor} {
				for _, size := range []int{4 << 10, piece} {
					r := run{line: line{perByte: perByte, buffer: buffer}, size: size}
					best := min(fixed(r, c, total, true), fixed(r, c, total, false))
					p := newPolicy()
					r.policy(&p, c, total)
					if r.now > 1.10*best {
						t.Errorf("%s in writes of %d, %.1f ns/byte behind %.0f bytes: %.0f ms, best %.0f ms; %+v", name,
							size, perByte, buffer, r.now/1e6, best/1e6, r.sent)
					}
				}
			}
		}
	}
}

// TestBusyMachine is TestNearTheBest where every measurement is mostly noise.
func TestBusyMachine(t *testing.T) {
	const total = 512 << 20
	for _, perByte := range []float64{1, 3, 10, 32, 83, 1000} {
		for name, c := range map[string]content{"source": source, "small": small, "random": random} {
			var took, best float64
			for seed := range uint64(5) {
				starving := func() run {
					l := line{perByte: perByte, buffer: 2 << 20}
					return run{line: l, size: piece, busy: rand.New(rand.NewPCG(seed, 1))}
				}
				best += min(fixed(starving(), c, total, true), fixed(starving(), c, total, false))
				p, r := newPolicy(), starving()
				r.policy(&p, c, total)
				took += r.now
			}
			if took > 1.25*best {
				t.Errorf("%s, %.0f ns/byte: %.0f ms, best %.0f ms, %.2f", name, perByte, took/1e6, best/1e6, took/best)
			}
		}
	}
}

// TestSlowLinkIsNotTried makes sure that a link known to be slow costs no raw visits.
func TestSlowLinkIsNotTried(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 83}, size: piece}
	r.policy(&p, small, 1<<30)
	if r.sent.raw > 0 {
		t.Errorf("%d bytes were sent raw", r.sent.raw)
	}
}

// TestHopelessIsSampled makes sure that content that does not shrink is looked at again, neither often nor rarely.
func TestHopelessIsSampled(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 83}, size: piece}
	r.policy(&p, random, 256<<20)
	if least, most := 256<<20/(4<<20)/2*piece, 16<<20; r.sent.packed < least || r.sent.packed > most {
		t.Errorf("%d bytes were sampled, want %d to %d", r.sent.packed, least, most)
	}
}

// TestChangesAreNoticed changes the content or the link after a long time of sameness.
func TestChangesAreNoticed(t *testing.T) {
	slow, fast := 83.0, 0.5
	for _, c := range []struct {
		name         string
		before       content
		link         float64
		after        content
		linkThen     float64
		packed       bool // what it must come to
		within, than int  // bytes: after so many, of the next so many at least nine in ten
	}{
		{"text after media", random, slow, small, slow, true, 5 << 20, 64 << 20},
		{"media after text", small, slow, random, slow, false, 8 << 20, 64 << 20},
		{"slow after fast", small, fast, small, slow, true, 8 << 20, 64 << 20},
		{"fast after slow", small, slow, small, fast, false, 16 << 20, 64 << 20},
		{"media, then a fast link with text", random, slow, small, fast, false, 32 << 20, 64 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, r := newPolicy(), run{line: line{perByte: c.link, buffer: 2 << 20}, size: piece}
			r.policy(&p, c.before, 1<<30)
			r.line.perByte = c.linkThen
			r.policy(&p, c.after, c.within)
			r.sent.packed, r.sent.raw = 0, 0
			r.policy(&p, c.after, c.than)
			right := r.sent.raw
			if c.packed {
				right = r.sent.packed
			}
			if right < c.than*9/10 {
				t.Errorf("%d of %d bytes went the right way; %+v", right, c.than, p)
			}
		})
	}
}

// TestIdleProducerTeachesNothing sends rarely over a slow link, whose buffer is empty each time.
func TestIdleProducerTeachesNothing(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 83, buffer: 2 << 20}, size: piece}
	r.policy(&p, small, 64<<20)
	for range 1000 {
		r.policy(&p, small, piece)
		r.now += 1e9
	}
	if share := float64(r.sent.raw) / float64(r.sent.raw+r.sent.packed); share > 0.1 {
		t.Errorf("%.0f%% were sent raw", 100*share)
	}
}

// TestBufferIsNoLink begins raw, with what an empty buffer takes at once: that does not make a fast link.
func TestBufferIsNoLink(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 83, buffer: 4 << 20}, size: piece}
	p.turn()
	r.policy(&p, small, 3<<20)
	if p.link < firstLink {
		t.Errorf("the link is believed to take %.1f ns/byte", p.link)
	}
}

// TestBlockedVisitEndsAtOnce visits a slow link with raw bytes: the first piece that blocks is enough.
func TestBlockedVisitEndsAtOnce(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 83}, size: piece}
	r.policy(&p, small, 16<<20)
	p.turn()
	r.policy(&p, small, piece)
	if !p.packing || r.sent.raw != piece {
		t.Errorf("%+v, %+v", r.sent, p)
	}
}

// TestOneHiccupIsForgotten makes one write of a fast link block for long.
func TestOneHiccupIsForgotten(t *testing.T) {
	p, r := newPolicy(), run{line: line{perByte: 0.5}, size: piece}
	r.policy(&p, small, 256<<20)
	p.done(sample{raw: piece, wire: piece, writing: 100 * time.Millisecond})
	r.sent.packed, r.sent.raw = 0, 0
	r.policy(&p, small, 256<<20)
	if r.sent.packed > 16<<20 {
		t.Errorf("%d bytes were packed on a fast link", r.sent.packed)
	}
}

// TestStrangeMeasurements feeds what a clock may give, and wants numbers to stay numbers.
func TestStrangeMeasurements(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Hour, math.MaxInt64 / 8} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			p := newPolicy()
			for i := range 10000 {
				p.done(sample{raw: 1 + i%piece, wire: 1 + i%7, gap: d, packing: d, writing: d})
				for _, v := range []float64{p.link, p.cost, p.ratio, p.spent} {
					if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
						t.Fatalf("after %d: %+v", i, p)
					}
				}
			}
		})
	}
}
