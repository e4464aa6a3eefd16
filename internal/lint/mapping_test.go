package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// withoutEvents are names of package unix for writing to files in ways that raise no event.
var withoutEvents = []string{"Mmap", "MmapPtr", "SYS_MMAP", "SYS_IO_SUBMIT", "SYS_IO_URING_SETUP", "SYS_IO_URING_ENTER", "LOOP_SET_FD", "LOOP_CONFIGURE"}

// TestNothingIsWrittenWithoutAnEvent: the marker does not look into processes of georep, since all that they write raises
// events (marker/writers/own.go). So nothing that is linked into georep may write in another way.
func TestNothingIsWrittenWithoutAnEvent(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{range .GoFiles}}{{$.Dir}}/{{.}}\n{{end}}{{end}}", "./cmd/georep")
	list.Dir = root(t)
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list what georep is made of: %v", err)
	}
	files := strings.Fields(string(out))
	if len(files) < len(goFiles(t))/2 {
		t.Fatalf("georep is made of %d files only", len(files))
	}
	for _, path := range files {
		if strings.Contains(filepath.Dir(path), "golang.org/x/sys@") { // where these are declared
			continue
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range withoutEvents {
			if strings.Contains(string(source), "."+name) && selects(t, path, source, name) {
				t.Errorf("%s uses %s: the marker does not look into georep's own processes (marker/writers/own.go)", path, name)
			}
		}
	}
}

// selects tells whether a file uses a name of another package.
func selects(t *testing.T, path string, source []byte, name string) (found bool) {
	f, err := parser.ParseFile(token.NewFileSet(), path, source, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		found = found || ok && sel.Sel.Name == name
		return !found
	})
	return found
}
