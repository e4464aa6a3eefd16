package delta

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Key makes the sums of a session unforeseeable for whoever writes into the files. Both ends have the same.
type Key [16]byte

// NewKey is a random one.
func NewKey() Key {
	var k Key
	rand.Read(k[:]) // never fails, as documented
	return k
}

// StrongSize is the length of a strong sum, in bytes: the beginning of a tag of 16.
const StrongSize = 12

// weakBits is how much of a weak sum counts: its lowest bits.
const (
	weakBits = 40
	weakMask = 1<<weakBits - 1
)

// prime is 2^61-1, the modulus of the weak sum: 2^61 is 1 modulo it, so high bits are folded onto the low ones.
const prime = 1<<61 - 1

// maxFactor bounds what a sum is multiplied with. Half of the modulus keeps an unreduced sum h below 2^63:
// h*f/2^61 + 2^61 + 2^61+2^8 < h/2 + 2^62 + 2^8.
const maxFactor = 1 << 60

// sums computes the sums of blocks under a key. It has one user at a time.
type sums struct {
	point  uint64         // where the polynomials are evaluated; below maxFactor
	point8 uint64         // its 8th power; below maxFactor
	powers [8][256]uint64 // powers[j][x] is x*point^j
	gmac   cipher.AEAD
	nonce  [12]byte
	tag    [16]byte
}

func newSums(key Key) (*sums, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("key of the strong sum: %w", err)
	}
	gmac, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("strong sum: %w", err)
	}
	s := &sums{gmac: gmac}
	s.point = choosePoint(block)
	s.point8 = power(s.point, 8)
	for j := range s.powers {
		p := power(s.point, j)
		for x := range s.powers[j] {
			s.powers[j][x] = multiply(p, uint64(x))
		}
	}
	return s, nil
}

// choosePoint takes the first number of the cipher's stream that is fit to be one; every fourth is. The input blocks
// are none that GCM uses under our nonce.
func choosePoint(block cipher.Block) uint64 {
	var in, out [aes.BlockSize]byte
	in[0] = 0xff
	for {
		block.Encrypt(out[:], in[:])
		point := binary.BigEndian.Uint64(out[:]) % prime
		if point > 1<<32 && point < maxFactor && power(point, 8) < maxFactor {
			return point
		}
		binary.BigEndian.PutUint64(in[8:], binary.BigEndian.Uint64(in[8:])+1)
	}
}

// canonical is the one number below prime that h stands for, for any h.
func canonical(h uint64) uint64 {
	h = h&prime + h>>61
	if h >= prime {
		h -= prime
	}
	return h
}

// multiply is a*b modulo prime, for a and b below it.
func multiply(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return canonical(lo&prime + (hi<<3 | lo>>61))
}

// power is the nth power of a modulo prime.
func power(a uint64, n int) uint64 {
	r := uint64(1)
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			r = multiply(r, a)
		}
		a = multiply(a, a)
	}
	return r
}

// step is h*f+t, not reduced: f < maxFactor, t < 2^61+2^8, h < 2^63, and so is the result. The high word of h*(8f) is
// what lies above bit 61 of h*f.
func step(h, f, t uint64) uint64 {
	hi, lo := bits.Mul64(h, f<<3)
	return hi + (lo>>3 + t)
}

// weak is the weak sum of b as it is compared.
func (s *sums) weak(b []byte) uint64 { return shorten(s.polynomial(b)) }

// shorten is what counts of a sum that need not be reduced.
func shorten(h uint64) uint64 { return canonical(h) & weakMask }

// polynomial is the sum of b[i]*point^(len(b)-1-i), below prime.
func (s *sums) polynomial(b []byte) uint64 {
	var h uint64
	t := &s.powers
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		// Eight numbers below prime fit into 64 bits.
		sum := t[7][byte(x)] + t[6][byte(x>>8)] + t[5][byte(x>>16)] + t[4][byte(x>>24)] +
			t[3][byte(x>>32)] + t[2][byte(x>>40)] + t[1][byte(x>>48)] + t[0][byte(x>>56)]
		h = step(h, s.point8, sum&prime+sum>>61)
	}
	for _, x := range b {
		h = step(h, s.point, uint64(x))
	}
	return canonical(h)
}

// strong is the strong sum of b.
func (s *sums) strong(b []byte) [StrongSize]byte {
	s.gmac.Seal(s.tag[:0], s.nonce[:], nil, b)
	return [StrongSize]byte(s.tag[:StrongSize])
}

// leaving is what rolling adds for the byte that leaves a window of n bytes: leaving[x] = -x*point^n.
func (s *sums) leaving(n int) *[256]uint64 {
	var t [256]uint64
	p := power(s.point, n)
	for x := range t {
		t[x] = prime - multiply(p, uint64(x))
	}
	return &t
}
