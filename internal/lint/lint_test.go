// Package lint holds the project to its own rules: which package may import which, how long a function may be, and what
// is not written at all. It has no code of its own, only a test.
package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Bounds of docs/contributing.md.
const (
	maxFunction = 80
	maxFile     = 500
)

// allowed says which of our packages each package may import, directly; its own sub-packages' rules are their own. A
// trailing slash allows everything below. A package without a rule may not be.
var allowed = map[string][]string{
	"marker/xtime":          {},
	"internal/beneath":      {"marker/xtime"},
	"internal/bandwidth":    {"internal/size", "internal/timetable"},
	"internal/size":         {},
	"internal/timetable":    {},
	"internal/nearest":      {},
	"internal/filter":       {},
	"internal/events":       {},
	"internal/wallclock":    {"marker/moment"},
	"internal/words":        {},
	"internal/lint/measure": {"internal/lint/metrics"},
	"internal/lint/metrics": {},
	"internal/changes":      {"slave"},
	"internal/hooks":        {"internal/events", "internal/filter", "volume"},
	"internal/config":       {"internal/nearest", "internal/web/listen", "slave/policy", "volume"},
	"internal/health":       {"status"},
	"internal/history":      {},
	"internal/logs":         {},
	"internal/screen":       {"internal/health", "status"},
	"internal/web": {"internal/events", "internal/health", "internal/history", "internal/web/", "marker", "monitor", "status",
		"volume"},
	"internal/private":    {},
	"internal/web/listen": {"internal/private"},
	"slave":               {"internal/beneath", "marker/xtime"},
	"slave/apply":         {"slave", "internal/beneath", "marker/xtime"},
	"slave/delta":         {},
	"slave/gfidindex":     {"internal/beneath", "marker/xtime"},
	"slave/disk":          {"slave", "slave/apply", "slave/delta", "slave/disk/dirty", "slave/gfidindex", "slave/policy", "internal/beneath", "marker/xtime"},
	"slave/disk/dirty":    {"marker/xtime"},
	"slave/policy":        {"internal/filter", "internal/size", "internal/words", "marker/xtime"},
	"slave/agent":         {"slave", "slave/apply", "slave/compress", "internal/beneath", "marker/xtime"},
	"slave/sshconn":       {},
	"slave/compress":      {},
	"slave/sftp":          {"slave", "slave/apply", "slave/sftp/", "internal/beneath", "marker/xtime"},
	"slave/sftp/index":    {"slave", "internal/beneath", "marker/xtime"},
	"slave/sftp/wire":     {},
	"crawler/plan":        {"slave", "internal/beneath", "marker/xtime"},
	"crawler/source":      {"crawler/plan", "slave", "internal/beneath", "marker/xtime"},
	"crawler/share":       {"slave"},
	"crawler/retry":       {"slave", "marker/xtime"},
	"crawler/limit":       {"crawler/share", "crawler/source", "slave", "internal/beneath", "marker/xtime"},
	"crawler":             {"crawler/limit", "crawler/plan", "crawler/retry", "crawler/share", "crawler/source", "slave", "slave/delta", "internal/beneath", "internal/filter", "marker/xtime", "marker/hint"},
	"marker":              {"marker/", "internal/beneath"},
	"marker/queue":        {},
	"marker/moment":       {},
	"marker/statefile":    {},
	"marker/tree":         {"marker/xtime", "internal/beneath"},
	"marker/coverage":     {"marker/statefile", "internal/beneath"},
	"marker/scan":         {"marker/coverage", "marker/moment", "marker/statefile", "marker/tree", "internal/beneath"},
	"marker/writers":      {},
	"marker/fanotify":     {"marker/queue", "internal/beneath"},
	"marker/inotify":      {"marker/queue", "internal/beneath"},
	"marker/hint":         {"marker/xtime", "internal/beneath"},
	"volume":              {"internal/bandwidth", "internal/events", "internal/filter", "internal/size", "internal/timetable", "internal/words", "marker/xtime"},
	"status":              {},
	"monitor":             {"monitor/report", "internal/events", "internal/hooks", "internal/wallclock", "status", "volume"},
	"monitor/report":      {"status"},
	"cmd/georep": {"crawler", "internal/", "marker", "marker/xtime", "monitor", "monitor/report", "slave", "slave/agent", "slave/disk",
		"slave/policy", "status", "volume"},
	"crawler/source/gluster": {"crawler/plan", "crawler/source", "slave", "internal/beneath",
		"marker/xtime"},
	"internal/agenthost": {"internal/changes", "internal/confine", "internal/hooks", "internal/words", "internal/beneath", "marker/xtime",
		"slave", "slave/agent", "slave/disk", "slave/policy", "status", "volume"},
	"internal/authorize": {},
	"internal/confine":   {},
	"internal/connect": {"internal/bandwidth", "internal/beneath", "marker/xtime", "slave", "slave/agent", "slave/disk", "slave/sftp",
		"slave/compress", "slave/sshconn", "status", "volume"},
	"internal/demo":      {"internal/beneath", "internal/sshserver", "marker/xtime", "monitor", "status", "volume"},
	"internal/service":   {"internal/private", "monitor", "status", "volume"},
	"internal/serve":     {"slave/policy"},
	"internal/sshserver": {},
	"internal/strip":     {"internal/beneath", "marker/xtime", "slave"},
	"internal/worker": {"crawler", "crawler/limit", "crawler/retry", "crawler/source", "internal/beneath", "internal/changes", "internal/connect", "internal/filter", "internal/timetable",
		"internal/wallclock", "marker", "marker/hint", "marker/xtime", "monitor/report", "slave", "slave/policy", "status", "volume"},
	"internal/doctor": {"internal/beneath", "internal/connect", "internal/service", "marker", "marker/fanotify", "marker/inotify", "monitor",
		"slave", "slave/sshconn", "status", "volume"},
}

func TestLayers(t *testing.T) {
	for _, dir := range packageDirs(t) {
		rule, ok := allowed[dir]
		if !ok {
			t.Errorf("%s has no rule: say in allowed what it may import", dir)
		}
		for _, imported := range imports(t, dir) {
			if !permitted(imported, rule) {
				t.Errorf("%s imports %s; the layers of docs/design.md do not allow that", dir, imported)
			}
		}
	}
	for dir := range allowed {
		if _, err := os.Stat(filepath.Join(root(t), dir)); err != nil {
			t.Errorf("the rule for %s has no package: %v", dir, err)
		}
	}
}

func permitted(imported string, rule []string) bool {
	return slices.ContainsFunc(rule, func(r string) bool {
		return imported == r || strings.HasSuffix(r, "/") && strings.HasPrefix(imported, r)
	})
}

func TestShape(t *testing.T) {
	for _, path := range goFiles(t) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root(t), path)
		if n := fset.File(f.Pos()).LineCount(); n > maxFile+1 {
			t.Errorf("%s has %d lines, more than %d", rel, n, maxFile)
		}
		for _, d := range f.Decls {
			checkFunction(t, fset, rel, d)
		}
		checkCalls(t, fset, rel, f)
	}
}

func checkFunction(t *testing.T, fset *token.FileSet, file string, d ast.Decl) {
	fn, ok := d.(*ast.FuncDecl)
	if !ok || fn.Body == nil {
		return
	}
	if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1; n > maxFunction {
		t.Errorf("%s: %s has %d lines, more than %d", file, fn.Name.Name, n, maxFunction)
	}
	if fn.Recv == nil && fn.Name.Name == "init" {
		t.Errorf("%s has an init function", file)
	}
}

// checkCalls finds what is not called outside tests: time.Sleep, which no context ends, and os.Exit but in one place.
func checkCalls(t *testing.T, fset *token.FileSet, file string, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
			t.Errorf("%s: panic", fset.Position(n.Pos()))
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, _ := sel.X.(*ast.Ident)
		if pkg == nil {
			return true
		}
		switch name := pkg.Name + "." + sel.Sel.Name; {
		case name == "time.Sleep":
			t.Errorf("%s: time.Sleep", fset.Position(n.Pos()))
		case name == "os.Exit" && file != "cmd/georep/main.go":
			t.Errorf("%s: os.Exit outside cmd/georep/main.go", fset.Position(n.Pos()))
		}
		return true
	})
}

func TestFormatted(t *testing.T) {
	out, err := exec.Command("gofmt", "-l", root(t)).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("gofmt -l: %v\n%s", err, out)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// goFiles are the project's files outside tests and the test harness.
func goFiles(t *testing.T) (files []string) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(top, path)
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != top || d.Name() == "testdata" || rel == "integration" ||
			rel == "internal/sshdtest" || rel == "slave/slavetest" || rel == "crawler/source/sourcetest") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func packageDirs(t *testing.T) []string {
	var dirs []string
	for _, f := range goFiles(t) {
		rel, _ := filepath.Rel(root(t), filepath.Dir(f))
		dirs = append(dirs, rel)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// imports are the packages of ours that the files of dir import, without the module's name.
func imports(t *testing.T, dir string) (out []string) {
	for _, path := range goFiles(t) {
		if rel, _ := filepath.Rel(root(t), filepath.Dir(path)); rel != dir {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			name, _ := strconv.Unquote(i.Path.Value)
			if ours, ok := strings.CutPrefix(name, "georep/"); ok {
				out = append(out, ours)
			}
		}
	}
	return out
}
