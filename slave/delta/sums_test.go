package delta

import (
	"bytes"
	"math/big"
	"math/rand/v2"
	"testing"
)

func testSums(t testing.TB, key Key) *sums {
	t.Helper()
	s, err := newSums(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWeakIsPolynomial compares with arithmetic of arbitrary precision.
func TestWeakIsPolynomial(t *testing.T) {
	for k := range 20 {
		s := testSums(t, Key{byte(k)})
		if s.point >= maxFactor || s.point8 >= maxFactor {
			t.Fatalf("point %#x, %#x", s.point, s.point8)
		}
		for n := range 40 {
			b := random(n*7, uint64(n))
			if n%3 == 0 {
				b = bytes.Repeat([]byte{0xff}, n*7)
			}
			want, m := new(big.Int), big.NewInt(prime)
			for _, x := range b {
				want.Mul(want, new(big.Int).SetUint64(s.point))
				want.Add(want, big.NewInt(int64(x))).Mod(want, m)
			}
			if s.weak(b) != want.Uint64()&weakMask {
				t.Fatalf("%#x shortened to %#x", want, s.weak(b))
			}
			if got := s.polynomial(b); got != want.Uint64() {
				t.Fatalf("key %d, %d bytes: %#x, expected %#x", k, len(b), got, want)
			}
		}
	}
}

// TestRolling rolls along content and compares each sum with the one computed afresh.
func TestRolling(t *testing.T) {
	s := testSums(t, NewKey())
	contents := [][]byte{random(5000, 1), make([]byte, 5000), bytes.Repeat([]byte{0xff}, 5000)}
	for _, n := range []int{1, 2, 7, 8, 9, 100, 2048} {
		leaving := s.leaving(n)
		for _, b := range contents {
			h := s.polynomial(b[:n])
			for i := range len(b) - n {
				h = step(h, s.point, leaving[b[i]]+uint64(b[i+n]))
				if want := s.polynomial(b[i+1 : i+1+n]); canonical(h) != want {
					t.Fatalf("length %d, rolled by %d: %#x, expected %#x", n, i+1, canonical(h), want)
				}
			}
		}
	}
}

// TestArithmetic checks multiply, canonical and step at the ends of their ranges.
func TestArithmetic(t *testing.T) {
	m := big.NewInt(prime)
	mod := func(x *big.Int) uint64 { return new(big.Int).Mod(x, m).Uint64() }
	r := rand.New(rand.NewPCG(1, 1))
	edges := []uint64{0, 1, 2, prime - 1, prime - 2, 1 << 60, 1<<60 - 1}
	for range 1000 {
		edges = append(edges, r.Uint64N(prime))
	}
	for _, a := range edges {
		b := edges[r.IntN(len(edges))]
		big1, big2 := new(big.Int).SetUint64(a), new(big.Int).SetUint64(b)
		if got, want := multiply(a, b), mod(new(big.Int).Mul(big1, big2)); got != want {
			t.Errorf("%#x * %#x: %#x, expected %#x", a, b, got, want)
		}
		h, f, add := r.Uint64()>>1, min(a, maxFactor-1), b+r.Uint64N(257)
		if a < 3 {
			h, f, add = 1<<63-1, maxFactor-1, prime+256
		}
		got := step(h, f, add)
		want := new(big.Int).SetUint64(h)
		want.Mul(want, new(big.Int).SetUint64(f)).Add(want, new(big.Int).SetUint64(add))
		if got >= 1<<63 || canonical(got) != mod(want) {
			t.Errorf("%#x * %#x + %#x: %#x", h, f, add, got)
		}
	}
	for _, x := range []uint64{0, prime - 1, prime, prime + 1, 2 * prime, 7*prime + 3, 1<<64 - 1} {
		if got := canonical(x); got != x%prime {
			t.Errorf("canonical %#x: %#x", x, got)
		}
	}
}

// TestStrong expects another sum for another key, length, or bit, also for zeros only.
func TestStrong(t *testing.T) {
	s, other := testSums(t, Key{1}), testSums(t, Key{2})
	b := random(3000, 3)
	sum := s.strong(b)
	if sum != testSums(t, Key{1}).strong(b) {
		t.Error("not the same again")
	}
	if sum == other.strong(b) || sum == s.strong(b[:2999]) || s.strong(make([]byte, 16)) == s.strong(make([]byte, 17)) {
		t.Error("another key or length has the same sum")
	}
	for i := range len(b) * 8 {
		b[i/8] ^= 1 << (i % 8)
		if s.strong(b) == sum {
			t.Fatalf("bit %d does not count", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	if n := testing.AllocsPerRun(100, func() { s.strong(b) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if a, b := NewKey(), NewKey(); a == b {
		t.Error("keys are not random")
	}
}

// TestSumsAreFormat pins both sums: the two ends may be of different versions.
func TestSumsAreFormat(t *testing.T) {
	s := testSums(t, testKey)
	b := []byte("the two ends may be of different versions")
	got := Both.AppendBlocks(nil, []Block{{s.weak(b), s.strong(b)}})
	const want = "727984984a9102e70a1a719a56ba067e23"
	if hex := hexOf(got); hex != want {
		t.Errorf("%s, was %s", hex, want)
	}
}
