package moves

// Cases are the moves to try. Each is to be made in a tree of its own.
func Cases() []Case {
	var all []Case
	for _, some := range [][]Case{plain(), swaps(), several(), whiteouts()} {
		all = append(all, some...)
	}
	return all
}

func plain() []Case {
	return []Case{
		{Name: "a file", Do: func(t *Tree) { t.Rename("a/f0", "c/new") }},
		{Name: "a file the other way", Do: func(t *Tree) { t.Rename("c/f0", "a/new") }},
		{Name: "a file in its directory", Do: func(t *Tree) { t.Rename("a/f0", "a/new") }},
		{Name: "a file over another", Do: func(t *Tree) { t.Rename("a/f0", "c/f1") }},
		{Name: "a file over another beside it", Do: func(t *Tree) { t.Rename("a/f0", "a/f1") }},
		{Name: "a file into a new directory", Lists: true, Do: func(t *Tree) {
			t.Mkdir("new", "new/deep")
			t.Rename("a/f0", "new/f0")
			t.Rename("c/f0", "new/deep/f0")
		}},
		{Name: "a symbolic link", Do: func(t *Tree) { t.Rename("a/link", "c/link2") }},
		{Name: "a directory", Do: func(t *Tree) { t.Rename("z/deep", "moved") }},
		{Name: "a directory down", Do: func(t *Tree) { t.Rename("a", "z/deep/a") }},
		{Name: "a directory over another", Do: func(t *Tree) { t.Rename("a", "e") }},
		{Name: "a directory into a new one", Lists: true, Do: func(t *Tree) { t.Mkdir("new"); t.Rename("a", "new/a") }},
		{Name: "into a new directory, which moves", Lists: true, Do: func(t *Tree) {
			t.Mkdir("new")
			t.Rename("a", "new/a")
			t.Rename("b/f0", "new/f0")
			t.Rename("new", "z/newer")
		}},
		{Name: "out of a directory that is removed", Do: func(t *Tree) {
			t.Rename("z/deep/sub", "c/saved")
			t.Rename("z/deep/f1", "a/saved")
			t.Remove("z")
		}},
		{Name: "all of a directory, which is removed", Do: func(t *Tree) {
			for _, name := range []string{"f0", "f1", "f2", "link", "sub"} {
				t.Rename("a/"+name, "e/"+name)
			}
			t.Remove("a")
		}},
	}
}

func swaps() []Case {
	return []Case{
		{Name: "two names swapped", Do: func(t *Tree) { t.Exchange("a/f0", "c/f2") }},
		{Name: "two names beside each other swapped", Do: func(t *Tree) { t.Exchange("a/f0", "a/f2") }},
		{Name: "two names swapped by three renames", Do: func(t *Tree) {
			t.Rename("a/f0", "t")
			t.Rename("b/f0", "a/f0")
			t.Rename("t", "b/f0")
		}},
		{Name: "symbolic links swapped", Do: func(t *Tree) { t.Exchange("a/link", "c/link") }},
		{Name: "directories swapped", Do: func(t *Tree) { t.Exchange("a", "z/deep") }},
		{Name: "directories beside each other swapped", Do: func(t *Tree) { t.Exchange("a", "b") }},
		{Name: "directories swapped by three renames", Do: func(t *Tree) {
			t.Rename("a", "t")
			t.Rename("z/deep", "a")
			t.Rename("t", "z/deep")
		}},
		{Name: "a directory and a file swapped", Do: func(t *Tree) { t.Exchange("a/sub", "c/f1") }},
		{Name: "a directory and a file beneath another swapped", Do: func(t *Tree) { t.Exchange("b", "z/deep/f1") }},
		{Name: "directories, and what is in them, swapped", Do: func(t *Tree) {
			t.Exchange("a", "b")
			t.Exchange("a/f0", "c/f0")
			t.Exchange("b/f1", "a/f2")
		}},
		{Name: "swapped, and changed, too", Do: func(t *Tree) {
			t.Exchange("a/f0", "c/f2")
			t.Exchange("a/f1", "c/f1")
			t.Chmod("a/f1")
		}},
	}
}

func several() []Case {
	return []Case{
		{Name: "a cycle of three", Do: func(t *Tree) { t.Exchange("a/f0", "b/f0"); t.Exchange("b/f0", "c/f0") }},
		{Name: "a cycle of three by renames", Do: func(t *Tree) {
			t.Rename("a/f0", "t")
			t.Rename("c/f0", "a/f0")
			t.Rename("b/f0", "c/f0")
			t.Rename("t", "b/f0")
		}},
		{Name: "a cycle of directories", Do: func(t *Tree) { t.Exchange("a", "b"); t.Exchange("b", "c") }},
		{Name: "a chain", Do: func(t *Tree) {
			t.Rename("a/f2", "a/f3")
			t.Rename("a/f1", "a/f2")
			t.Rename("a/f0", "a/f1")
		}},
		{Name: "a chain over another file", Do: func(t *Tree) { t.Rename("a/f1", "b/f1"); t.Rename("c/f1", "a/f1") }},
		{Name: "a chain of directories", Do: func(t *Tree) { t.Rename("c", "d"); t.Rename("b", "c"); t.Rename("a", "b") }},
		{Name: "one after the other", Do: func(t *Tree) {
			t.Rename("a/f0", "b/x")
			t.Rename("b/x", "c/y")
			t.Rename("c/y", "z/deep/f0")
			t.Rename("z/deep", "deep")
		}},
		{Name: "a directory, and one of its files out of it", Lists: true, Do: func(t *Tree) {
			t.Rename("a/f0", "c/out")
			t.Rename("a", "z/a")
		}},
		{Name: "a directory, and a file into it", Do: func(t *Tree) { t.Rename("a", "z/a"); t.Rename("c/f0", "z/a/in") }},
		{Name: "a directory, and its subdirectory above it", Lists: true, Do: func(t *Tree) {
			t.Rename("a/sub", "sub")
			t.Rename("a", "sub/a")
		}},
	}
}

func whiteouts() []Case {
	return []Case{
		{Name: "a whiteout", Do: func(t *Tree) { t.Whiteout("a/f0", "b/moved") }},
		{Name: "a whiteout over another", Do: func(t *Tree) { t.Whiteout("c/f0", "a/f1") }},
		{Name: "a whiteout in the place of a directory", Do: func(t *Tree) { t.Whiteout("a", "z/a") }},
		{Name: "a whiteout that moves", Do: func(t *Tree) {
			t.Whiteout("a/f0", "b/moved")
			t.Exchange("a/f0", "b/f2")
		}},
	}
}
