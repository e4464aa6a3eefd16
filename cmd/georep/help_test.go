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
