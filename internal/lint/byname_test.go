package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// byName are the methods of beneath.Dir that look at, or change, an entry by its name, with how many arguments they have:
// those of the same name that act on what is pinned have one less.
var byName = map[string]int{"Chmod": 2, "Chown": 3, "SetMtime": 2, "Setxattr": 3, "Removexattr": 2, "Getxattr": 2,
	"GetxattrInto": 3, "Listxattr": 1, "SetXtime": 3}

// mayActByName are the functions that may, and why: everywhere else an entry is pinned first and acted on through that (one way
// to an entry: docs/security.md). "" as the name is what is pinned itself.
var mayActByName = map[string]string{
	"crawler/source/local.go: reader.xtime":        "only our own xtime is read, and the GFID is compared with the pinned one's before anything is shipped",
	"crawler/source/local.go: Local.replicated":    "fileMeta gives it what is pinned, and no name",
	"slave/disk/inspector.go: records.replicated":  "it only tells a verifier what is there, who compares the GFID as well",
	"slave/kept.go: KeptAt":                        "it tells what the entry is; a master compares the GFID with the pinned one's before it ships anything, and a slave acts on the place that it has pinned",
	"slave/disk/inspector.go: Inspector.takeXtime": "our own xtime is taken away, which has any entry compared anew and changes nothing of it",
	"marker/core.go: newCore":                      "our own xtime is set: a mark on another entry than was meant has that one compared",
}

// TestNothingActsByName: between a look at a name and an act by it a user may put another entry in its place.
func TestNothingActsByName(t *testing.T) {
	used := map[string]bool{}
	for _, path := range goFiles(t) {
		rel, _ := filepath.Rel(root(t), path)
		// What it is made of; and SFTP has no descriptors, nor has a restore, whose directory is its own until it has ended.
		if strings.HasPrefix(rel, "internal/beneath") || strings.HasPrefix(rel, "slave/sftp") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			where := rel + ": " + receiver(fn) + fn.Name.Name
			for _, call := range callsByName(fn) {
				used[where] = true
				if mayActByName[where] == "" {
					t.Errorf("%s: %s acts by name: pin the entry and act on that, or say in mayActByName why not", fset.Position(call.Pos()), where)
				}
			}
		}
	}
	for where := range mayActByName {
		if !used[where] {
			t.Errorf("mayActByName has %q, which does not act by name", where)
		}
	}
}

func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	kind := fn.Recv.List[0].Type
	if star, ok := kind.(*ast.StarExpr); ok {
		kind = star.X
	}
	if id, ok := kind.(*ast.Ident); ok {
		return id.Name + "."
	}
	return ""
}

// callsByName are the calls of a function that act by a name, and those of package os that change an entry by its path.
func callsByName(fn *ast.FuncDecl) (calls []*ast.CallExpr) {
	ast.Inspect(fn.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || len(call.Args) == 0 || byName[sel.Sel.Name] != len(call.Args) {
			return true
		}
		if name, ok := call.Args[0].(*ast.BasicLit); !ok || name.Value != `""` {
			calls = append(calls, call)
		}
		return true
	})
	return calls
}
