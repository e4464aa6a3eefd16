package main

import (
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"georep/volume"
)

// helpWidth is how wide help is at most, in columns, and helpIndent where explanations begin.
const (
	helpWidth  = 80
	helpIndent = 28
)

const appHelp = `{{.HelpName}} - {{.Usage}}

Usage:
   {{.HelpName}} [global options] COMMAND [options] [arguments]

Commands:{{range .VisibleCommands}}
{{row .Name .Usage}}{{end}}

Global options:{{range .VisibleFlags}}
{{option .}}{{end}}

"georep COMMAND --help" says more of a command. Version: {{.Version}}
`

const commandHelp = `{{head .HelpName .Usage}}

Usage:
   {{.HelpName}}{{if .VisibleFlags}} [options]{{end}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}
{{about .}}{{range grouped .VisibleFlags}}
{{.Title}}:{{range .Flags}}
{{option .}}{{end}}
{{end}}{{examples .}}`

const groupHelp = `{{head .HelpName .Usage}}

Usage:
   {{.HelpName}} COMMAND [options] [arguments]

Commands:{{range .VisibleCommands}}
{{row .Name .Usage}}{{end}}
`

// printHelp is cli.HelpPrinter that keeps to the width.
func printHelp(w io.Writer, templ string, data any) {
	switch data := data.(type) {
	case *cli.App:
		templ = appHelp
	case *cli.Command:
		templ = commandHelp
		if len(data.Subcommands) > 0 {
			templ = groupHelp
		}
	}
	cli.HelpPrinterCustom(w, templ, data, map[string]any{"row": row, "option": option, "grouped": grouped, "about": aboutOf, "examples": examplesOf,
		"head": func(name, usage string) string { return fill(name+" - "+usage, 0, 3) }})
}

// flagGroup is a part of a command's flags.
type flagGroup struct {
	Title string
	Flags []cli.Flag
}

// grouped sorts many flags by what they are about. What is in no group comes first.
func grouped(flags []cli.Flag) (out []flagGroup) {
	if len(flags) < manyFlags {
		if len(flags) > 0 {
			out = append(out, flagGroup{"Options", flags})
		}
		return out
	}
	left := slices.Clone(flags)
	for _, g := range groups {
		part := flagGroup{Title: g.title}
		left = slices.DeleteFunc(left, func(f cli.Flag) bool {
			in := slices.Contains(g.flags, f.Names()[0])
			if in {
				part.Flags = append(part.Flags, f)
			}
			return in
		})
		if len(part.Flags) > 0 {
			out = append(out, part)
		}
	}
	return append([]flagGroup{{"Options", left}}, out...)
}

// pathOf is a command's name with those of the commands that it belongs to.
func pathOf(c *cli.Command) string { return strings.TrimPrefix(c.HelpName, "georep ") }

func aboutOf(c *cli.Command) string {
	if text := about[pathOf(c)]; text != "" {
		return "\n" + text + "\n"
	}
	return ""
}

func examplesOf(c *cli.Command) string {
	lines := examples[pathOf(c)]
	if len(lines) == 0 {
		return ""
	}
	return "\nExamples:\n   " + strings.Join(lines, "\n   ") + "\n"
}

// isOldName tells whether a flag's name is one that help and completion no longer show.
func isOldName(flag string) bool { return volume.CurrentName(flag) != flag }

// option is a row of help on a flag. The default of a flag that takes no value goes without saying.
func option(f cli.Flag) string {
	name := ""
	for _, n := range f.Names() {
		if isOldName(n) {
			continue
		}
		if len(n) > 1 {
			name = "--" + n + name
		} else {
			name += ", -" + n
		}
	}
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return row(name, "")
	}
	usage := doc.GetUsage()
	if doc.TakesValue() {
		value := "VALUE"
		if before, rest, found := strings.Cut(usage, "`"); found {
			named, after, _ := strings.Cut(rest, "`")
			value, usage = named, before+named+after
		}
		name += " " + value
		if text := strings.Trim(doc.GetDefaultText(), `"`); text != "" {
			usage += " (default: " + text + ")"
		}
	}
	return row(name, usage)
}

// row puts a name beside what it means, or above where it is long.
func row(name, meaning string) string {
	left := "   " + name
	if gap := helpIndent - utf8.RuneCountInString(left); gap >= 2 {
		left += strings.Repeat(" ", gap)
	} else {
		left += "\n" + strings.Repeat(" ", helpIndent)
	}
	return strings.TrimRight(left+fill(meaning, helpIndent, helpIndent), " ")
}

// fill breaks text into lines within the width. It stands at column at; further lines are indented.
func fill(text string, at, indent int) string {
	var b strings.Builder
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case at+1+n > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += n
	}
	return b.String()
}
