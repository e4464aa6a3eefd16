package main

import (
	"io"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
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
{{if .VisibleFlags}}

Options:{{range .VisibleFlags}}
{{option .}}{{end}}
{{end}}`

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
	cli.HelpPrinterCustom(w, templ, data, map[string]any{"row": row, "option": option,
		"head": func(name, usage string) string { return fill(name+" - "+usage, 0, 3) }})
}

// option is a row of help on a flag. The default of a flag that takes no value goes without saying.
func option(f cli.Flag) string {
	name := ""
	for _, n := range f.Names() {
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
