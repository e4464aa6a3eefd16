package compare

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// RsyncOptions says how rsync judges.
type RsyncOptions struct {
	// Binary is the rsync to run; "" is the one in PATH.
	Binary string
	// Exclude lists patterns in rsync's syntax, "/name" for a name at the root, of what rsync must not look at: paths
	// over PATH_MAX, for one.
	Exclude []string
}

// RsyncCheck lets real rsync compare b with a, contents by checksum, and returns the lines it itemises: what it would
// change in b. georep's own attributes and /.georep are left out. No line means equal. Nothing is written.
func RsyncCheck(ctx context.Context, a, b string, opts RsyncOptions) ([]string, error) {
	binary := opts.Binary
	if binary == "" {
		binary = "rsync"
	}
	cmd := exec.CommandContext(ctx, binary, rsyncArgs(a, b, opts.Exclude)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("compare %q with %q by rsync: %w: %s", a, b, err, strings.TrimSpace(stderr.String()))
	}
	// rsync escapes newlines in names, so a line is an item.
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	if stderr.Len() > 0 {
		return lines, errors.New("rsync complains: " + strings.TrimSpace(stderr.String()))
	}
	return lines, nil
}

// rsyncArgs builds the command line. Any filter for attributes ("x") switches rsync's default one off, which hides the
// system namespace (ACLs travel by -A), so it is put back.
func rsyncArgs(a, b string, exclude []string) []string {
	const uuid = "????????-????-????-????-????????????"
	args := []string{
		"-aHAXS", "--numeric-ids", "--checksum", "--modify-window=-1", "--delete", "--dry-run", "--itemize-changes",
		"--exclude=/.georep", "--filter=-x system.*", "--filter=-x trusted.SGI_ACL_*",
	}
	for _, space := range []string{"trusted", "user"} {
		args = append(args,
			"--filter=-x "+space+".glusterfs."+uuid+".xtime",
			"--filter=-x "+space+".glusterfs."+uuid+".gfid")
	}
	for _, pattern := range exclude {
		args = append(args, "--exclude="+pattern)
	}
	return append(args, "--", strings.TrimSuffix(a, "/")+"/", strings.TrimSuffix(b, "/")+"/")
}

// Rsync is RsyncCheck for a test: it ends the test when rsync cannot run or complains, and returns the itemised lines,
// none when the trees are equal.
func Rsync(t testing.TB, a, b string, exclude ...string) []string {
	t.Helper()
	lines, err := RsyncCheck(t.Context(), a, b, RsyncOptions{Exclude: exclude})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}
