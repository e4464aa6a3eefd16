package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ResolveDir turns an absolute path of an existing directory into its clean form without symbolic
// links. Relative paths are refused, since a session must mean the same from every working
// directory. What is recorded is the resolved path: a link that is changed later does not change
// the volume.
func ResolveDir(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", kindf(ErrSyntax, "%q is not an absolute path", path)
	}
	if strings.ContainsRune(path, 0) {
		return "", kindf(ErrSyntax, "%q: a path has no NUL byte", path)
	}
	resolved, err := filepath.EvalSymlinks(filepath.Clean(path))
	if err != nil {
		return "", fmt.Errorf("directory %q: %w", path, cause(err))
	}
	fi, err := os.Stat(resolved)
	if err != nil {
		return "", fmt.Errorf("directory %q: %w", path, cause(err))
	}
	if !fi.IsDir() {
		return "", kindf(ErrSyntax, "%q is not a directory: a volume is a directory tree", path)
	}
	return resolved, nil
}

// resolvePart is ResolveDir for a path whose last components may not exist yet.
func resolvePart(path string) (string, error) {
	path = filepath.Clean(path)
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) || path == "/" {
		return resolved, cause(err)
	}
	parent, err := resolvePart(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

// cause takes the path out of a *PathError, where the message names it already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// within tells whether path lies below dir or is dir; both are clean and resolved.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// sameDir recognises one directory under two names, as bind mounts give it. False where either
// cannot be looked at.
func sameDir(a, b string) bool {
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}
