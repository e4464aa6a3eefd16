// Package config reads what an operator wants replicated from files: /etc/georep/georep.toml and what it includes. It
// turns them into the state that the registry shall have, and says of every mistake in which file and line it is and what
// would mend it. It changes nothing, and asks no process; cmd/georep makes the registry so.
//
// A file is a list of tables:
//
//	include = ["conf.d/*.toml"]     # in the first file only
//
//	[defaults]                      # settings of all sessions that do not say otherwise
//	quiet-period = "2s"
//
//	[[volume]]
//	name = "data"
//	path = "/srv/data"
//
//	[[session]]
//	master = "data"                 # or a directory, which becomes a volume
//	slave = "backup.example.org::copy"
//	bwlimit = "10M"                 # any key of georep config
//	started = true
//
//	[web]                           # of georep run
//	listen = "127.0.0.1:9847"
//
// scan.go turns a file into its tables, with the line of every key; load.go follows the includes; meaning.go says what the
// tables mean.
package config

import (
	"fmt"
	"strings"

	"georep/internal/web/listen"
	"georep/volume"
)

// Default is the file that is read where nobody names one.
const Default = "/etc/georep/georep.toml"

// Place is a line of a file. Line 0 means the file as a whole.
type Place struct {
	File string
	Line int
}

// String is file:line, as editors and compilers write it.
func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Problem is a mistake in a file. Its text says what is wrong and what would be right.
type Problem struct {
	Place
	Text string
}

// Error is the place and the text, on one line.
func (p Problem) Error() string { return p.Place.String() + ": " + p.Text }

// Problems are all that is wrong, in the order of the files. As an error it is the first of them.
type Problems []Problem

// Error is the first one, and how many more there are.
func (p Problems) Error() string {
	text := p[0].Error()
	if n := len(p) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more: see georep configcheck)", n)
	}
	return text
}

// Session is one that the files want.
type Session struct {
	Place
	Master  volume.Master
	Slave   volume.Slave
	Started bool
	Config  map[string]string // its own settings and the defaults
}

// Name is how people call it.
func (s Session) Name() string { return masterText(s.Master) + " " + s.Slave.String() }

// Volume is one that the files want.
type Volume struct {
	Place
	Name, Path string
	// Policy is what masters may do with it as a slave. Nil where the files say nothing of it.
	Policy map[string]string
}

// Desired is what the registry shall have. It is what the files say, and nothing of what there is.
type Desired struct {
	Volumes  []Volume
	Sessions []Session
	Web      *Web // nil: no web server
}

// Web is the web server of the service.
type Web struct {
	Place
	listen.Options
}

// masterText is the master as the file names it.
func masterText(m volume.Master) string {
	if m.Path != "" {
		return m.Path
	}
	return m.Name
}

// list names alternatives.
func list(words []string) string { return strings.Join(words, ", ") }
