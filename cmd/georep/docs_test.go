package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// root is the project's.
const root = "../.."

// pages are the texts for people, with the directory that their links start from.
func pages(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		some, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(some) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		all = append(all, some...)
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestConfigReference: the reference is what the tables say.
func TestConfigReference(t *testing.T) {
	if got := read(t, root+"/docs/configuration.md"); got != configReference() {
		t.Error("docs/configuration.md is out of date: go run ./cmd/georep generate configuration >docs/configuration.md")
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)#:]+)(?:#([^)]*))?\)`)
	span     = regexp.MustCompile("`([^`\n]+(?:\n[^`\n]+)?)`")
	inQuotes = regexp.MustCompile(`'[^']*'`) // one word of a shell
	inPath   = regexp.MustCompile(`^(cmd|marker|crawler|slave|monitor|status|volume|docs|internal|packaging|integration)/[\w./-]+$`)
)

// TestLinks: what a page links to is there.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			to := filepath.Join(filepath.Dir(page), m[1])
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
				continue
			}
			if m[2] != "" && !slices.Contains(anchors(read(t, to)), m[2]) {
				t.Errorf("%s links to %s, which has no heading #%s", page, m[1], m[2])
			}
		}
	}
}

// anchors are the names of a page's headings, as forges make them.
func anchors(text string) (all []string) {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			name = strings.ToLower(strings.TrimSpace(name))
			name = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(name, "")
			all = append(all, strings.ReplaceAll(name, " ", "-"))
		}
	}
	return all
}

// codes are the pieces of a page that are to be typed: lines of indented and fenced blocks, and spans.
func codes(text string) (all []string) {
	fenced := false
	var prose strings.Builder
	for line := range strings.Lines(text) {
		switch trimmed := strings.TrimSpace(line); {
		case strings.HasPrefix(trimmed, "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "    "):
			all = append(all, trimmed)
		default:
			prose.WriteString(line)
		}
	}
	for _, m := range span.FindAllStringSubmatch(prose.String(), -1) {
		all = append(all, strings.Join(strings.Fields(m[1]), " "))
	}
	return all
}

// TestCommandsOfThePages: each command that a page names is one, and takes the flags that stand behind it; a flag that stands alone is
// one of some command. Paths of the project are there, and so are make's targets and tests.
func TestCommandsOfThePages(t *testing.T) {
	app := newApp(&env{})
	makefile := read(t, root+"/Makefile")
	checked := 0
	for _, page := range pages(t) {
		if strings.HasSuffix(page, "CHANGELOG.md") { // it speaks of what was, too
			continue
		}
		for _, code := range codes(read(t, page)) {
			words := strings.Fields(inQuotes.ReplaceAllString(code, "X"))
			switch {
			case len(words) == 0:
			case strings.HasPrefix(words[0], "--") && len(words[0]) > 2:
				checked++
				if !anyFlag(app, words[0]) {
					t.Errorf("%s: no command has the flag %s", page, words[0])
				}
			case words[0] == "make" && len(words) > 1:
				checked++
				if target := words[1]; !strings.ContainsAny(target, `="`) && !strings.Contains(makefile, "\n"+target+":") {
					t.Errorf("%s: the Makefile has no %s", page, target)
				}
			case inPath.MatchString(words[0]):
				checked++
				if _, err := os.Stat(filepath.Join(root, words[0])); err != nil && !strings.Contains(words[0], "...") {
					t.Errorf("%s: %v", page, err)
				}
			}
			for _, command := range commandsIn(words) {
				checked++
				if why := wrong(app, command); why != "" {
					t.Errorf("%s: %q: %s", page, code, why)
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d pieces were checked", checked)
	}
}

// commandsIn are the command lines of georep in one piece, without what the shell takes for itself.
func commandsIn(words []string) (all [][]string) {
	var at []string
	in := false
	for i, w := range words {
		first := i == 0 || strings.HasPrefix(w, `restrict,command="`) || words[0] == "ssh" || words[0] == "sudo"
		w = strings.TrimPrefix(w, `restrict,command="`)
		name := first && (w == "georep" || strings.HasSuffix(w, "/georep") && strings.HasPrefix(w, "/"))
		switch {
		case name && !in:
			in, at = true, nil
		case !in:
		case w == "&&" || w == ";" || strings.HasPrefix(w, "#") || strings.HasPrefix(w, ">"):
			all, at, in = append(all, at), nil, false
		default:
			at = append(at, strings.Trim(w, `"'`))
		}
	}
	if in {
		all = append(all, at)
	}
	return all
}

// wrong tells what is wrong with a command line; "" where nothing is.
func wrong(app *cli.App, words []string) string {
	var flags []cli.Flag
	commands, siblings := app.Commands, app.Commands
	path := ""
	for i, w := range words {
		if w == "|" { // an alternative, as in stop | restart, or a pipe
			is := func(c *cli.Command) bool { return i+1 < len(words) && c.Name == words[i+1] }
			if !slices.ContainsFunc(siblings, is) {
				return ""
			}
			commands = siblings
			continue
		}
		w = strings.TrimSuffix(strings.TrimSuffix(w, ","), ";")
		if strings.HasPrefix(w, "[--") {
			w = strings.Trim(w, "[]")
		}
		if name, ok := strings.CutPrefix(w, "--"); ok && name != "" {
			name, _, _ = strings.Cut(name, "=")
			if !hasFlag(append(slices.Clone(app.Flags), flags...), name) && name != "help" && name != "version" {
				return path + " has no flag --" + name
			}
			continue
		}
		if commands == nil || !regexp.MustCompile(`^[a-z]+$`).MatchString(w) {
			commands = nil
			continue
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.Name == w })
		if i < 0 {
			return "no command " + path + w
		}
		siblings = commands
		path, flags, commands = path+w+" ", commands[i].Flags, commands[i].Subcommands
	}
	return ""
}

func hasFlag(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// anyFlag tells whether georep or one of its commands has a flag.
func anyFlag(app *cli.App, word string) bool {
	name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSuffix(word, ","), "--"), "=")
	if hasFlag(app.Flags, name) || name == "help" || name == "version" {
		return true
	}
	var in func([]*cli.Command) bool
	in = func(all []*cli.Command) bool {
		return slices.ContainsFunc(all, func(c *cli.Command) bool { return hasFlag(c.Flags, name) || in(c.Subcommands) })
	}
	return in(app.Commands)
}

// TestTestsOfThePages: a test that a page names, with its package, is there.
func TestTestsOfThePages(t *testing.T) {
	named := regexp.MustCompile(`go test (?:-[a-z]+ )*-run '?([\w|$^/]+)'? (?:-[a-z]+ )*\./([\w/]+\w)(?:[^\w/]|$)`)
	checked := 0
	for _, page := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			files, err := filepath.Glob(filepath.Join(root, m[2], "*_test.go"))
			if err != nil || len(files) == 0 {
				t.Errorf("%s: %s has no tests", page, m[2])
				continue
			}
			var text strings.Builder
			for _, file := range files {
				text.WriteString(read(t, file))
			}
			for _, pattern := range strings.Split(m[1], "|") {
				pattern, _, _ = strings.Cut(strings.Trim(pattern, "^$"), "/")
				checked++
				if !regexp.MustCompile(`func (Test|Fuzz|Benchmark)?\w*` + strings.Trim(pattern, "$")).MatchString(text.String()) {
					t.Errorf("%s: %s has no test %s", page, m[2], pattern)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d tests were looked for", checked)
	}
}

// TestReasonsOfThePages: what troubleshooting goes by is what the program says.
func TestReasonsOfThePages(t *testing.T) {
	var program strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			program.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(read(t, root+"/docs/troubleshooting.md"), -1)
	if len(rows) < 10 {
		t.Errorf("only %d reasons", len(rows))
	}
	for _, m := range rows {
		if !strings.Contains(program.String(), m[1]) {
			t.Errorf("the program never says %q", m[1])
		}
	}
}

// TestFunctionsOfThePages: a function that stands in brackets behind a file is in that file.
func TestFunctionsOfThePages(t *testing.T) {
	named := regexp.MustCompile("`([\\w/]+\\.go)` \\(((?:`\\w+`(?:, )?)+)\\)")
	checked := 0
	for _, page := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(read(t, page), -1) {
			text := read(t, filepath.Join(root, m[1]))
			for _, name := range strings.Split(m[2], ", ") {
				checked++
				if name = strings.Trim(name, "`"); !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name + `\b`).MatchString(text) {
					t.Errorf("%s: %s has no function %s", page, m[1], name)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d functions were looked for", checked)
	}
}

// design are the pages that explain the code.
func design(t *testing.T) []string {
	t.Helper()
	more, err := filepath.Glob(filepath.Join(root, "docs/design/*.md"))
	if err != nil || len(more) == 0 {
		t.Fatalf("docs/design: %v", err)
	}
	return append(more, root+"/docs/design.md", root+"/docs/contributing.md")
}

// TestNamesOfTheDesignPages: a test that a page on the design names is there, and so is a function in the file that the page says it is in,
// as in `name` in `dir/file.go`, or `dir/file.go` (`name`).
func TestNamesOfTheDesignPages(t *testing.T) {
	var tests strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			tests.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	const file, name = "`([a-z]+/[\\w/]+\\.go)`", "`(\\w+)`"
	isIn, has := regexp.MustCompile(name+`\s+in\s+`+file), regexp.MustCompile(file+`\s+\(`+name+`(?:, `+name+`)*\)`)
	checked := 0
	for _, page := range design(t) {
		text := read(t, page)
		for _, m := range regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(text, -1) {
			if checked++; !strings.Contains(tests.String(), "func "+m[1]) {
				t.Errorf("%s: there is no test %s", page, m[1])
			}
		}
		var pairs [][2]string
		for _, m := range isIn.FindAllStringSubmatch(text, -1) {
			pairs = append(pairs, [2]string{m[2], m[1]})
		}
		for _, m := range has.FindAllStringSubmatch(text, -1) {
			pairs = append(pairs, [2]string{m[1], m[2]})
		}
		for _, pair := range pairs {
			checked++
			declared := regexp.MustCompile(`(?m)^(?:func (?:\([^)]*\) )?|type |\t|var |const )` + pair[1] + `\b`)
			if !declared.MatchString(read(t, filepath.Join(root, pair[0]))) {
				t.Errorf("%s: %s does not declare %s", page, pair[0], pair[1])
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d names were checked", checked)
	}
}

// TestSentencesOfTheDesign: no sentence of these pages has to be read twice.
func TestSentencesOfTheDesign(t *testing.T) {
	const most = 30
	fenced, checked := false, 0
	var paragraph strings.Builder
	end := func() {
		for _, sentence := range regexp.MustCompile(`[.:;] `).Split(paragraph.String()+" ", -1) {
			if n := len(strings.Fields(sentence)); n > most {
				t.Errorf("%d words, at most %d: %s", n, most, sentence)
			}
			checked++
		}
		paragraph.Reset()
	}
	var text strings.Builder
	for _, page := range design(t) {
		if !strings.HasSuffix(page, "contributing.md") { // it is a table, and lists
			text.WriteString(read(t, page) + "\n")
		}
	}
	for line := range strings.Lines(text.String()) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case fenced || strings.HasPrefix(line, "|"):
		case line == "" || strings.HasPrefix(line, "#") || regexp.MustCompile(`^(-|\d+\.) `).MatchString(line):
			end()
			paragraph.WriteString(line + " ")
		default:
			paragraph.WriteString(line + " ")
		}
	}
	if end(); checked < 500 {
		t.Errorf("only %d sentences were read", checked)
	}
}
