package agent

import (
	"reflect"
	"strings"
	"testing"

	"georep/slave"
)

func TestQueriesComeBack(t *testing.T) {
	many := make([]string, slave.MaxNames)
	for i := range many {
		many[i] = strings.Repeat("n", i%256)
	}
	all := []slave.Query{{}, {Path: "a/b", Part: 3, Parts: 9}, {ByName: true}, {Path: "x", ByName: true, Names: []string{"", "n\xff"}},
		{Path: "y", ByName: true, Names: many}}
	var b []byte
	for _, q := range all {
		if err := checkQuery(q); err != nil {
			t.Fatal(err)
		}
		b = appendQuery(b, q)
	}
	d := &decoder{b: b}
	got := queries(d)
	if err := d.end(); err != nil || !reflect.DeepEqual(got, all) {
		t.Fatalf("%v: %d questions came back as %d", err, len(all), len(got))
	}
	for _, q := range []slave.Query{{ByName: true, Names: append(many, "x")}, {ByName: true, Names: []string{strings.Repeat("n", 256)}}} {
		if checkQuery(q) == nil {
			t.Error("a question beyond the limits may be sent")
		}
		d := &decoder{b: appendQuery(nil, q)}
		if queries(d); d.end() == nil {
			t.Error("a question beyond the limits was decoded")
		}
	}
}

// TestQueriesAreBounded: a frame full of empty names is refused before they fill the memory.
func TestQueriesAreBounded(t *testing.T) {
	one := appendQuery(nil, slave.Query{ByName: true, Names: make([]string, slave.MaxNames)})
	d := &decoder{}
	for len(d.b)+len(one) < maxFrame {
		d.b = append(d.b, one...)
	}
	if got := queries(d); d.end() == nil || len(got)*slave.MaxNames > maxNames+slave.MaxNames {
		t.Fatalf("%d questions, %v", len(got), d.err)
	}
}
