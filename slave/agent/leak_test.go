package agent

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain fails the run when goroutines of the package are left at its end.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftovers(); left != "" {
		fmt.Fprintf(os.Stderr, "goroutines left:\n%s\n", left)
		code = max(code, 1)
	}
	os.Exit(code)
}

// leftovers waits for a while, since a goroutine may be on its way out.
func leftovers() (left string) {
	for range 100 {
		buf := make([]byte, 1<<20)
		left = ""
		for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(stack, "slave/agent.(*") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return left
}
