package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// TestHelpFits: the help of each command fits a terminal of 80 columns, and names all its flags and commands.
func TestHelpFits(t *testing.T) {
	help := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(append([]string{"georep"}, args...), "--help"), &out, &errs); code != exitDone || errs.Len() > 0 {
			t.Errorf("%q: exit code %d, %s", args, code, &errs)
		}
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > helpWidth || strings.HasSuffix(line, " \n") {
				t.Errorf("%q: %d columns: %q", args, n, line)
			}
		}
		return out.String()
	}
	var all func(path []string, commands []*cli.Command)
	all = func(path []string, commands []*cli.Command) {
		for _, c := range commands {
			at := append(path[:len(path):len(path)], c.Name)
			text := help(at...)
			for _, f := range c.Flags {
				if !strings.Contains(text, "--"+f.Names()[0]) {
					t.Errorf("%q: nothing of --%s", at, f.Names()[0])
				}
			}
			all(at, c.Subcommands)
		}
	}
	app := newApp(&env{})
	all(nil, app.Commands)
	text := help()
	for _, c := range app.Commands {
		if c.Hidden == strings.Contains(text, "\n   "+c.Name+" ") {
			t.Errorf("%s is hidden %v, and in the help it is the other way round", c.Name, c.Hidden)
		}
	}
}

// TestExamplesAreRight: each command that people type has an example, and an example has only commands and flags that there are.
func TestExamplesAreRight(t *testing.T) {
	app := newApp(&env{})
	known := map[string]*cli.Command{}
	var all func(path string, commands []*cli.Command)
	all = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			at := strings.TrimSpace(path + " " + c.Name)
			known[at] = c
			if _, has := examples[at]; !has && !c.Hidden && len(c.Subcommands) == 0 {
				t.Errorf("%s has no example", at)
			}
			all(at, c.Subcommands)
		}
	}
	all("", app.Commands)
	for at, lines := range examples {
		c := known[at]
		if c == nil {
			t.Errorf("there is no command %s", at)
			continue
		}
		for _, line := range lines {
			typed, _, _ := strings.Cut(line, " #")
			if typed = strings.TrimSpace(typed); typed != "georep "+at && !strings.HasPrefix(typed, "georep "+at+" ") {
				t.Errorf("%q is no example of %s", line, at)
			}
			if _, err := reorder(app, strings.Fields(typed)); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	for at := range about {
		if known[at] == nil {
			t.Errorf("there is no command %s", at)
		}
	}
}
