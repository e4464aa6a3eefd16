// Package metrics measures Go source: how long functions are, how much of it is comments, how large types are. The lint
// holds the project to bounds of these numbers, and the command measure prints them as the table of docs/contributing.md.
// It only reads, keeps nothing between calls, and knows no rule itself.
//
// # Files
//
//	metrics.go   one file, and what several files come to
//	tree.go      which files of a source tree count as code, and which as tests
package metrics

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"os"
	"slices"
	"strings"
)

// Lines are the lines of a file by what is on them. A line that has both code and a comment is code,
// an empty one is neither. A directive such as //go:build is code, since the compiler acts on it.
type Lines struct {
	// Code counts lines with at least one token that is no comment.
	Code int
	// Comment counts lines that a comment covers and nothing else, also empty ones within a block comment.
	Comment int
}

// Share is the part of the lines that are comments, from 0 to 1; 0 where there are no lines.
func (l Lines) Share() float64 {
	if l.Code+l.Comment == 0 {
		return 0
	}
	return float64(l.Comment) / float64(l.Code+l.Comment)
}

// Add adds the lines of another file.
func (l *Lines) Add(o Lines) { l.Code, l.Comment = l.Code+o.Code, l.Comment+o.Comment }

// Receiver is a type with the methods it has, and the files that these lie in. Generic types count as one, whatever their
// type parameters are called in each method. Fields is zero for a type that is no struct.
type Receiver struct {
	Methods, Fields int
	Files           map[string]bool
}

// File is what was measured of one file. Nothing in it refers to the source any more.
type File struct {
	// Lines are those of the whole file, its package clause and imports included.
	Lines     Lines
	Functions []int                // the lines of each, from func to the closing brace
	Receivers map[string]*Receiver // by the type's name
	Fuzz      int                  // functions named Fuzz...
}

// Read measures the file at path. The error is that of reading or parsing it.
func Read(path string) (*File, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, src)
}

// Parse measures source text; name stands in errors and in Receiver.Files. The text has to be a whole file.
// It is safe for concurrent use, as everything here is.
func Parse(name string, src []byte) (*File, error) {
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &File{Lines: lines(src), Receivers: map[string]*Receiver{}}
	for _, d := range parsed.Decls {
		f.declare(fset, name, d)
	}
	return f, nil
}

// lines sorts lines into code and comments by their tokens, so that a string with slashes is none.
func lines(src []byte) (l Lines) {
	var s scanner.Scanner
	fset := token.NewFileSet()
	file := fset.AddFile("", fset.Base(), len(src))
	s.Init(file, src, nil, scanner.ScanComments)
	code, comment := map[int]bool{}, map[int]bool{}
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			break
		}
		if tok == token.SEMICOLON && text == "\n" { // the scanner's own, at the end of a line
			continue
		}
		// Every token marks all of its lines: a raw string and a block comment may have many.
		on := code
		if tok == token.COMMENT && !strings.HasPrefix(text, "//go:") {
			on = comment
		}
		first := file.Line(pos)
		for i := range strings.Count(text, "\n") + 1 {
			on[first+i] = true
		}
	}
	l.Code = len(code)
	for line := range comment {
		if !code[line] {
			l.Comment++
		}
	}
	return l
}

// declare adds one declaration of the file: a function, or a group of types. Constants and variables say nothing here.
func (f *File) declare(fset *token.FileSet, name string, d ast.Decl) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		f.function(fset, name, d)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			one, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			if of, ok := one.Type.(*ast.StructType); ok {
				f.receiver(one.Name.Name).Fields = of.Fields.NumFields()
			}
		}
	}
}

// function counts the lines of a function with a body, and adds a method to its receiver.
func (f *File) function(fset *token.FileSet, name string, d *ast.FuncDecl) {
	if d.Body != nil {
		f.Functions = append(f.Functions, fset.Position(d.End()).Line-fset.Position(d.Pos()).Line+1)
	}
	if d.Recv == nil && strings.HasPrefix(d.Name.Name, "Fuzz") {
		f.Fuzz++
	}
	if d.Recv != nil {
		if on := typeName(d.Recv.List[0].Type); on != "" {
			r := f.receiver(on)
			r.Methods++
			r.Files[name] = true
		}
	}
}

// receiver gives the type of that name, which may be declared further down, or in another file of the package.
func (f *File) receiver(name string) *Receiver {
	r := f.Receivers[name]
	if r == nil {
		r = &Receiver{Files: map[string]bool{}}
		f.Receivers[name] = r
	}
	return r
}

// typeName is "" for what cannot be a receiver, which the parser has refused by then. It is the name of a receiver's type, without the star and the type parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// Quantile is the nearest rank, without interpolation: the answer is always one of the numbers.
// It gives the value below which the given share of the numbers lies; 0 of none. It sorts them.
func Quantile(numbers []int, share float64) int {
	if len(numbers) == 0 {
		return 0
	}
	slices.Sort(numbers)
	return numbers[min(int(share*float64(len(numbers))), len(numbers)-1)]
}
