package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"georep/slave/policy"
	"georep/volume"
)

// completeFlag ends a command line that a shell wants to have completed; the word under the cursor follows.
const completeFlag = "--complete"

// complete prints what the word under the cursor may become, one a line: commands, flags, and what the registry has. It
// reports false where argv asks for nothing of the kind. A registry that cannot be read completes nothing.
func complete(app *cli.App, argv []string, out io.Writer) bool {
	n := len(argv)
	if n < 3 || argv[n-2] != completeFlag {
		return false
	}
	words, word := argv[1:n-2], argv[n-1]
	p := newParser(app)
	if p.parse(words) != nil {
		return true // the last flag wants a value, or the line is wrong already
	}
	for _, c := range p.candidates(word) {
		if strings.HasPrefix(c, word) {
			fmt.Fprintln(out, c)
		}
	}
	return true
}

// candidates are the words that may come next.
func (p *parser) candidates(word string) []string {
	if strings.HasPrefix(word, "-") {
		if p.leaf == nil {
			return longNames(p.global)
		}
		return longNames(append(slices.Clone(p.leaf.Flags), cli.HelpFlag))
	}
	if len(p.commands) > 0 {
		return names(p.commands)
	}
	if p.leaf == nil {
		return nil
	}
	s, err := volume.OpenStore(p.stateDir())
	if err != nil {
		return nil
	}
	return arguments(s, p.leaf, p.path, p.args)
}

// stateDir is the registry that the line names, or the usual one.
func (p *parser) stateDir() string {
	for i, word := range p.globals {
		if value, ok := strings.CutPrefix(word, "--state-dir="); ok {
			return value
		}
		if word == "--state-dir" && i+1 < len(p.globals) {
			return p.globals[i+1]
		}
	}
	return cmp.Or(os.Getenv("GEOREP_STATE_DIR"), defaultStateDir)
}

// arguments are what a command's next argument may be, by what its usage calls it.
func arguments(s *volume.Store, leaf *cli.Command, path, given []string) (list []string) {
	names := strings.Fields(strings.NewReplacer("[", "", "]", "").Replace(leaf.ArgsUsage))
	if len(given) >= len(names) {
		return nil
	}
	sessions, _ := s.Sessions() // those that can be read
	switch names[len(given)] {
	case "MASTER":
		for _, each := range sessions {
			list = append(list, each.Master)
		}
		fallthrough
	case "NAME":
		volumes, _ := s.Volumes()
		for i := range volumes {
			list = append(list, volumes[i].Name)
		}
	case "SLAVE":
		for _, each := range sessions {
			if each.Master == given[0] {
				list = append(list, each.Slave.String())
			}
		}
	case "KEY":
		if slices.Contains(path, "volume") {
			for _, k := range policy.Keys() {
				list = append(list, k.Name)
			}
			break
		}
		for _, k := range volume.ConfigKeys() {
			list = append(list, k.Name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
