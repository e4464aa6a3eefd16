package compress

import "time"

// policy decides whether the next piece is to be packed. It is fed with what the pieces before it took, and knows no
// clock. All its estimates are nanoseconds per byte:
//
//	link   that the link takes for a byte
//	cost   that packing takes for a byte
//	ratio  packed bytes per byte (a number)
//
// Packing pays off where cost + ratio*link is less than link; while it is done, what it really takes, which is less if
// the link is busy meanwhile, stands in the place of that sum. What is not done cannot be measured, so now and then the
// other way is tried for a while: a visit. Visits that change nothing become rarer, down to a bound, and are never so
// frequent that they cost more than a small share of the time.
//
// How long a write blocks says little about a link with buffers (SSH's window and the kernel's hold megabytes): a write
// is quick while a buffer takes it, and the link goes on emptying the buffer while the next piece is packed. So what a
// write blocked, per byte, is a least value for link; and what passed since the write before it, packing included, is
// a greatest value, once more was sent than the buffers hold. What was believed before stays where it lies between
// the two. Raw pieces sent without a pause make the two nearly the same.
type policy struct {
	packing bool // the way it goes

	link, cost, ratio float64

	// Of the episode, which is the time since the way last changed.
	recent recent
	run    int     // bytes
	sent   int     // bytes on the wire
	spent  float64 // ns of packing and writing

	// What is left until the other way is due for a visit: bytes on the wire, which fill the buffers if anything
	// does, and ns of packing and writing.
	distance int
	rest     float64
	why      reason
	pauses   [reasons]pause
}

// sample is what became of one piece.
type sample struct {
	raw, wire int           // bytes; wire counts the header
	gap       time.Duration // between the end of the write before it and the beginning of this piece
	packing   time.Duration // of making the chunk
	writing   time.Duration // that the underlying Write took
}

// reason is why an episode goes its way.
type reason int

const (
	paysOff  reason = iota // packed: the link is slow enough
	fastLink               // raw: the link takes the bytes sooner than the packer
	hopeless               // raw: the content does not become smaller
	reasons  = 3
)

const (
	// worthwhile is the share of the time of writing raw that packing may take at most; shrinks is the ratio above
	// which content is hopeless.
	worthwhile = 0.95
	shrinks    = 0.95
	// firstLink is what a link is believed to take before anything is known: 50 MB/s, so that the beginning is packed.
	firstLink = 20.0
	// buffers is what may lie between a Writer and the link, in bytes.
	buffers = 4 << 20
	// memory is after how many bytes a measurement counts a third as much.
	memory = 4 << 20
	// packedVisit and rawVisit are how many bytes a visit lasts at least, since on a busy machine one measurement says
	// little. Of raw bytes it takes more, because of the buffers; it ends early when the link blocks enough. After a
	// glance it is known whether content is hopeless, for the ratio has no noise.
	packedVisit = 1 << 20
	rawVisit    = buffers
	glance      = 64 << 10
	// dearness is how many times the time lost by a visit must pass before the next one; longestRest bounds it.
	dearness    = 32
	longestRest = float64(60 * time.Second)
)

// pause is how long an episode of one reason lasts before the other way is visited.
type pause struct {
	bytes       int // on the wire; doubles after every short visit
	least, most int
	longVisit   int // raw bytes; a visit at least this long was none: the next pause is the least again
}

// newPolicy makes a policy that packs until it knows better.
func newPolicy() policy {
	p := policy{packing: true, link: firstLink, ratio: 0.5, pauses: [reasons]pause{
		paysOff:  {least: 2 << 20, most: 32 << 20, longVisit: 32 << 20},
		fastLink: {least: 4 << 20, most: 8 << 20, longVisit: 32 << 20},
		hopeless: {least: 512 << 10, most: 4 << 20, longVisit: 1 << 20},
	}}
	p.distance = p.pauses[paysOff].least
	return p
}

// next gives the pause after a visit of run bytes.
func (p *pause) next(run int) int {
	if run >= p.longVisit {
		return p.least
	}
	return min(max(2*p.bytes, p.least), p.most)
}

// wantsPacked tells how the next piece is to be written.
func (p *policy) wantsPacked() bool { return p.packing }

// done takes the measurement of a piece that was written as wantsPacked said.
func (p *policy) done(s sample) {
	took := float64(s.packing + s.writing)
	p.run += s.raw
	p.sent += s.wire
	p.spent += took
	p.distance -= s.wire
	p.rest -= took
	p.recent.add(s)
	low, high := p.recent.link()
	p.link = max(p.link, low)
	if p.sent >= buffers {
		p.link = min(p.link, high)
	}
	if p.packing {
		p.cost, p.ratio = p.recent.packing()
		p.packed(low)
	} else {
		p.written(low)
	}
}

// packed decides after a packed piece. low is the least that the link can be taking.
func (p *policy) packed(low float64) {
	switch {
	case p.ratio > shrinks && p.run >= glance:
		p.turn()
	case p.run < packedVisit:
	case p.recent.each() >= worthwhile*p.link:
		p.turn()
	case !p.due():
	case p.pays(low):
		// The link blocks so much that there is nothing to find out.
		p.distance = max(p.pauses[paysOff].bytes, p.pauses[paysOff].least)
	default:
		p.turn()
	}
}

// written decides after a raw piece.
func (p *policy) written(low float64) {
	switch {
	case p.run < rawVisit && p.why != hopeless && !p.pays(low):
	case p.pays(p.link), p.due():
		p.turn()
	}
}

// due tells whether it is time for a visit.
func (p *policy) due() bool { return p.distance <= 0 && p.rest <= 0 }

// pays tells whether packing should pay off on a link that takes so long.
func (p *policy) pays(link float64) bool { return p.cost+p.ratio*link < worthwhile*link }

// turn goes the other way.
func (p *policy) turn() {
	other := p.cost + p.ratio*p.link
	if p.packing {
		other = p.link
	}
	// What this episode lost, as far as is known now, in comparison with the way that is gone from here on.
	p.rest = min(max(0, dearness*(p.spent-other*float64(p.run))), longestRest)
	p.packing = !p.packing
	was := p.why
	switch {
	case p.packing:
		p.why = paysOff
	case p.ratio > shrinks:
		p.why = hopeless
	default:
		p.why = fastLink
	}
	pause := &p.pauses[p.why]
	if was != hopeless {
		pause.bytes = pause.next(p.run)
	}
	p.distance = max(pause.bytes, pause.least)
	p.recent, p.run, p.sent, p.spent = recent{}, 0, 0, 0
}

// recent sums up the samples of an episode; those that are longer ago count less.
type recent struct {
	raw, wire            float64
	packed, wrote, spent float64 // ns: packing; writing; all between the ends of writes
}

func (r *recent) add(s sample) {
	keep := float64(memory) / float64(memory+s.raw)
	r.raw = r.raw*keep + float64(s.raw)
	r.wire = r.wire*keep + float64(s.wire)
	r.packed = r.packed*keep + float64(s.packing)
	r.wrote = r.wrote*keep + float64(s.writing)
	r.spent = r.spent*keep + float64(s.gap+s.packing+s.writing)
}

// link gives the least and the most that a byte can have taken on the link.
func (r *recent) link() (low, high float64) { return r.wrote / r.wire, r.spent / r.wire }

// each gives what a byte took with everything that was done for it.
func (r *recent) each() float64 { return (r.packed + r.wrote) / r.raw }

// packing gives what packing a byte took, and what was left of it.
func (r *recent) packing() (cost, ratio float64) { return r.packed / r.raw, r.wire / r.raw }
