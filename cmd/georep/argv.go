package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"georep/internal/nearest"
)

// reorder puts a command line into the order that urfave/cli understands: the global flags, the command, its flags, and
// then the arguments behind "--". Flags may stand anywhere before a "--". Where a command has a flag of the same name as
// a global one, what stands behind the command is the command's. It refuses unknown commands and flags, and flags
// without their value.
func reorder(app *cli.App, argv []string) ([]string, error) {
	p := newParser(app)
	if err := p.parse(argv[1:]); err != nil {
		return nil, err
	}
	out := slices.Concat(argv[:1], p.globals, p.path, p.locals)
	if p.leaf != nil && len(p.args) > 0 {
		out = append(append(out, "--"), p.args...)
	}
	return out, nil
}

// parser sorts the words of one command line.
type parser struct {
	// commands are narrowed with each word that names one; where none is left a word is an argument.
	commands []*cli.Command // that the next word may name
	global   []cli.Flag
	leaf     *cli.Command // the command so far

	// What the command line is put together from, in this order.
	globals, path, locals, args []string
}

func newParser(app *cli.App) *parser {
	return &parser{commands: app.Commands, global: append(slices.Clone(app.Flags), cli.HelpFlag, cli.VersionFlag)}
}

// parse sorts words one by one. Behind "--" all are commands or arguments, whatever they begin with.
func (p *parser) parse(words []string) error {
	for len(words) > 0 {
		word := words[0]
		words = words[1:]
		switch {
		case word == "--":
			for _, w := range words {
				if err := p.word(w); err != nil {
					return err
				}
			}
			return nil
		case len(word) > 1 && word[0] == '-':
			rest, err := p.flag(word, words)
			if err != nil {
				return err
			}
			words = rest
		default:
			if err := p.word(word); err != nil {
				return err
			}
		}
	}
	return nil
}

// word takes the name of a command, or an argument.
func (p *parser) word(word string) error {
	if len(p.commands) == 0 {
		p.args = append(p.args, word)
		return nil
	}
	i := slices.IndexFunc(p.commands, func(c *cli.Command) bool { return c.HasName(word) })
	if i < 0 && word == "help" {
		p.globals = append(p.globals, "--help")
		return nil
	}
	if i < 0 {
		return usagef("unknown command %q%s", strings.Join(append(slices.Clone(p.path), word), " "), nearest.Hint(word, names(p.commands)))
	}
	p.leaf, p.path = p.commands[i], append(p.path, word)
	p.commands = p.leaf.Subcommands
	return nil
}

// flag takes a flag and, from what follows, its value. It returns the words that are left.
func (p *parser) flag(word string, words []string) ([]string, error) {
	name, _, hasValue := strings.Cut(strings.TrimLeft(word, "-"), "=")
	to := &p.locals
	f := p.local(name)
	if f == nil {
		f, to = find(p.global, name), &p.globals
	}
	if f == nil {
		return nil, usagef("unknown flag %q%s", word, nearest.Hint("--"+name, p.flagNames()))
	}
	*to = append(*to, word)
	if doc, ok := f.(cli.DocGenerationFlag); hasValue || !ok || !doc.TakesValue() {
		return words, nil
	}
	if len(words) == 0 {
		return nil, usagef("flag %s needs a value", word)
	}
	*to = append(*to, words[0])
	return words[1:], nil
}

// names are those that people may use.
func names(commands []*cli.Command) (list []string) {
	for _, c := range commands {
		if !c.Hidden {
			list = append(list, c.Name)
		}
	}
	return list
}

// flagNames are the long names that may stand where a flag is not known.
func (p *parser) flagNames() (list []string) {
	if p.leaf == nil {
		return longNames(p.global)
	}
	return longNames(slices.Concat(p.leaf.Flags, p.global))
}

// longNames are those that flags have with two dashes, but for old ones.
func longNames(flags []cli.Flag) (list []string) {
	for _, f := range flags {
		for _, name := range f.Names() {
			if len(name) > 1 && !isOldName(name) {
				list = append(list, "--"+name)
			}
		}
	}
	return list
}

// local finds a flag of the command so far; each has --help.
func (p *parser) local(name string) cli.Flag {
	if p.leaf == nil {
		return nil
	}
	return find(append(slices.Clone(p.leaf.Flags), cli.HelpFlag), name)
}

// find is the flag of that name or alias, or nil.
func find(flags []cli.Flag, name string) cli.Flag {
	i := slices.IndexFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return flags[i]
}
