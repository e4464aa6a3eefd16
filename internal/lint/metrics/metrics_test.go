package metrics

import (
	"testing"
)

const sample = `// Package sample is measured.
package sample

//go:generate true

/* A comment
of two lines. */
type T[K any] struct {
	a, b int // beside code
	c    string
}

const text = ` + "`// no comment\n// nor this`" + `

func (t *T[K]) one() { }

// two has a comment.
func (t T[K]) two() {
	// inside

	_ = "//"
}

func FuzzNothing() {}
`

// TestParse: each kind of line, function and receiver is counted as what it is.
func TestParse(t *testing.T) {
	f, err := Parse("sample.go", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Lines{Code: 13, Comment: 5}); f.Lines != want {
		t.Errorf("lines %+v, want %+v", f.Lines, want)
	}
	if len(f.Functions) != 3 || f.Functions[1] != 5 || f.Fuzz != 1 {
		t.Errorf("functions %v, fuzz targets %d", f.Functions, f.Fuzz)
	}
	if r := f.Receivers["T"]; r == nil || r.Methods != 2 || r.Fields != 3 || len(r.Files) != 1 {
		t.Errorf("receiver %+v", r)
	}
	if _, err := Parse("bad.go", []byte("package")); err == nil {
		t.Error("what is no Go was measured")
	}
}

// TestReceivers: a type whose methods lie in several files is one.
func TestReceivers(t *testing.T) {
	a, _ := Parse("a.go", []byte("package p\ntype T struct{ x int }\nfunc (T) a() {}\n"))
	b, _ := Parse("b.go", []byte("package p\nfunc (*T) b() {}\n"))
	if r := Receivers([]*File{a, b})["T"]; r.Methods != 2 || r.Fields != 1 || len(r.Files) != 2 {
		t.Errorf("%+v", r)
	}
	if l := Total([]*File{a, b}); l.Code != 5 || l.Comment != 0 || l.Share() != 0 {
		t.Errorf("%+v", l)
	}
}

func TestQuantile(t *testing.T) {
	n := []int{5, 1, 4, 2, 3}
	if Quantile(n, 0.5) != 3 || Quantile(n, 1) != 5 || Quantile(nil, 0.5) != 0 {
		t.Errorf("%d %d %d", Quantile(n, 0.5), Quantile(n, 1), Quantile(nil, 0.5))
	}
}
