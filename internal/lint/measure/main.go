// Command measure prints the numbers of docs/contributing.md, "Measured": of the whole project, and of each package with
// -packages. It is run in the root of the source tree:
//
//	go run ./internal/lint/measure
//	go run ./internal/lint/measure -packages
//
// It counts as the lint does, but for one thing: the harness of the end-to-end tests is code here, since other projects' numbers
// are counted like that, by the names of files alone.
package main

import (
	"flag"
	"fmt"
	"log"
	"maps"
	"slices"
	"strings"

	"georep/internal/lint/metrics"
)

func main() {
	log.SetFlags(0)
	byPackage := flag.Bool("packages", false, "one line for each package")
	flag.Parse()
	source, err := metrics.ReadTree(".")
	if err != nil {
		log.Fatalf("measure: %v", err)
	}
	if *byPackage {
		packages(source)
		return
	}
	project(source)
}

// packages prints the lines of code of each package and the share of comments, as a Markdown table. The
// packages below fifteen percent are the ones that fewComments in internal/lint names.
func packages(s *metrics.Source) {
	fmt.Println("| package | files | code lines | comments |\n|---|---|---|---|")
	for _, dir := range slices.Sorted(maps.Keys(s.Code)) {
		l := metrics.Total(s.Code[dir])
		fmt.Printf("| `%s` | %d | %d | %.1f %% |\n", dir, len(s.Code[dir]), l.Code, 100*l.Share())
	}
}

// project prints one column of the table, one number a line, in the order of the table's rows. The p95 is the length below which
// 95 of 100 functions stay; tests are measured by their lines only.
func project(s *metrics.Source) {
	var code, tests []*metrics.File
	for _, files := range s.Code {
		code = append(code, files...)
	}
	for _, files := range s.Tests {
		tests = append(tests, files...)
	}
	var functions []int
	fuzz := 0
	for _, f := range code {
		functions = append(functions, f.Functions...)
	}
	for _, f := range tests {
		fuzz += f.Fuzz
	}
	ours, theirs := metrics.Total(code), metrics.Total(tests)
	fmt.Printf("files / code lines            %d / %d\n", len(code), ours.Code)
	fmt.Printf("function median / p95 / max   %d / %d / %d\n", metrics.Quantile(functions, 0.5), metrics.Quantile(functions, 0.95),
		metrics.Quantile(functions, 1))
	fmt.Printf("comments                      %.1f %%\n", 100*ours.Share())
	fmt.Printf("test : code; fuzz targets     %.2f; %d\n", float64(theirs.Code)/float64(ours.Code), fuzz)
	fmt.Printf("largest receivers             %s\n", strings.Join(largest(s, 5), ", "))
}

// largest names the n types with the most methods, with the files these lie in and their fields. Types of equal size come in
// the order of their names, so that two runs over the same tree print the same.
func largest(s *metrics.Source, n int) (out []string) {
	type one struct {
		name string
		*metrics.Receiver
	}
	var all []one
	for dir, files := range s.Code {
		for name, r := range metrics.Receivers(files) {
			all = append(all, one{dir + "." + name, r})
		}
	}
	slices.SortFunc(all, func(a, b one) int {
		if a.Methods != b.Methods {
			return b.Methods - a.Methods
		}
		return strings.Compare(a.name, b.name)
	})
	for _, o := range all[:min(n, len(all))] {
		out = append(out, fmt.Sprintf("%s %d (%d files, %d fields)", o.name, o.Methods, len(o.Files), o.Fields))
	}
	return out
}
