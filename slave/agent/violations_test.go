package agent

import (
	"context"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"georep/slave"
)

// A server says in a Bye what it does not take, and the tree is closed.
func TestServerRejectsWhatIsOutOfPlace(t *testing.T) {
	op := putOp("a", nil)
	body := func(b []byte) []byte { return appendOp(b, &op) }
	query := func(b []byte) []byte { return appendQuery(b, slave.Query{Path: "x"}) }
	batch := appendFrame(nil, head{kind: frameBatch, id: 1}, body)
	after := func(b []byte, kind frameKind, id uint64, body func([]byte) []byte) []byte {
		return appendFrame(append([]byte{}, b...), head{kind: kind, id: id}, body)
	}
	many := func(b []byte) []byte {
		for range maxItems + 1 {
			b = query(b)
		}
		return b
	}
	for name, sent := range map[string][]byte{
		"unknown kind":             after(nil, 99, 1, nil),
		"an answer":                after(nil, frameResults, 1, nil),
		"second hello":             after(nil, frameHello, 0, nil),
		"data without a batch":     after(nil, frameData, 1, query),
		"data of another batch":    after(batch, frameData, 2, query),
		"batch within a batch":     after(batch, frameBatch, 2, body),
		"request without id":       after(nil, frameSurvey, 0, query),
		"batch without id":         after(nil, frameBatch, 0, nil),
		"id in use":                after(batch, frameSurvey, 1, query),
		"request in pieces":        appendFrame(nil, head{kind: frameSurvey, id: 1, more: true}, query),
		"batch in pieces":          appendFrame(nil, head{kind: frameBatch, id: 1, more: true}, body),
		"too many questions":       after(nil, frameSurvey, 1, many),
		"unknown flags":            {0, 0, 0, 3, byte(frameAlive), 2, 0},
		"frame too long":           {0xff, 0, 0, 0},
		"frame too short":          {0, 0, 0, 2, byte(frameAlive), 0},
		"bytes left over":          after(nil, frameClean, 1, func(b []byte) []byte { return append(b, 0, 0) }),
		"empty piece":              after(batch, frameData, 1, func(b []byte) []byte { return append(b, 0) }),
		"end beyond all":           after(batch, frameEnd, 1, func(b []byte) []byte { return append(b, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00"...) }),
		"abort without an error":   after(batch, frameAbort, 1, func(b []byte) []byte { return append(b, errNone) }),
		"an operation that is not": after(nil, frameBatch, 1, func(b []byte) []byte { return append(b, "nonsense"...) }),
	} {
		for _, stage := range []bool{true, false} {
			a, b := net.Pipe()
			tree := newFake()
			var served slave.Tree = tree
			if !stage {
				served = applyOnly{tree}
			}
			done := make(chan error, 1)
			go func() {
				done <- Serve(context.Background(), b, "v", func(Hello) (slave.Reader, error) { return served, nil })
			}()
			go a.Write(append(clientOpening(), sent...))
			said := readAll(t, a)
			if err := <-done; !errors.Is(err, errMalformed) {
				t.Errorf("%s: Serve returned %v", name, err)
			}
			if len(said) != 2 || said[0] != frameWelcome || said[1] != frameBye {
				t.Errorf("%s: the server said %v", name, said)
			}
			<-tree.closed
			if stage && len(tree.ops) != 0 {
				t.Errorf("%s: applied %v", name, tree.ops)
			}
		}
	}
}

// readAll reads what a server says, without answers: these may come or not.
func readAll(t *testing.T, rw io.ReadWriteCloser) (kinds []frameKind) {
	r := newReceiver(rw)
	if err := findMagic(r.r); err != nil {
		t.Fatal(err)
	}
	if _, err := readPreface(r.r); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.next()
		if err != nil {
			rw.Close()
			return kinds
		}
		if f.kind < frameStates {
			kinds = append(kinds, f.kind)
		}
	}
}

func TestClientRejectsWhatIsOutOfPlace(t *testing.T) {
	dir := func(b []byte) []byte { return appendDirState(b, &slave.DirState{}) }
	states := func(id uint64, body func([]byte) []byte) []byte {
		return appendFrame(nil, head{kind: frameStates, id: id}, body)
	}
	entry := func(name string) func([]byte) []byte {
		return func(b []byte) []byte { return appendEntry(dir(b), &slave.EntryState{Name: name}) }
	}
	for name, sent := range map[string][]byte{
		"never asked":      states(7, dir),
		"no id":            states(0, dir),
		"another kind":     appendFrame(nil, head{kind: frameSums, id: 1}, nil),
		"too few":          states(1, nil),
		"too many":         states(1, func(b []byte) []byte { return dir(dir(b)) }),
		"entry of nothing": states(1, func(b []byte) []byte { return appendEntry(b, &slave.EntryState{Name: "n"}) }),
		"bad name":         states(1, entry("../../etc/passwd")),
		"bad item":         states(1, func(b []byte) []byte { return append(b, 9) }),
		"empty failure":    appendFrame(nil, head{kind: frameFailure, id: 1}, func(b []byte) []byte { return append(b, errNone) }),
		"a request":        appendFrame(nil, head{kind: frameSurvey, id: 1}, nil),
	} {
		a, b := net.Pipe()
		go func() {
			b.Write(serverOpening())
			r := newReceiver(b)
			r.r.Discard(len(preface{version: "1.2.3"}.append(nil)))
			r.next()
			r.next() // the survey
			b.Write(sent)
			io.Copy(io.Discard, b)
		}()
		c, err := Dial(context.Background(), a, testHello())
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Survey(context.Background(), []slave.Query{{}})
		if !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

func TestStageErrorReachesTheClient(t *testing.T) {
	tree := newFake()
	tree.stageErr = slave.ErrUnfit
	s := begin(t, netPipe, tree)
	_, err := s.Apply(context.Background(), &slave.Batch{Ops: []slave.Op{putOp("a", pattern(1<<20))}})
	if !errors.Is(err, slave.ErrUnfit) {
		t.Errorf("got %v", err)
	}
	if err := s.finish(t); !errors.Is(err, slave.ErrUnfit) {
		t.Errorf("Serve returned %v", err)
	}
}

// Names that no Linux file system takes are left out of a survey; they would end the session at the other end.
func TestUnsendableNamesAreLeftOut(t *testing.T) {
	tree := newFake()
	tree.onSurvey = func(context.Context, []slave.Query) ([]slave.DirState, error) {
		return []slave.DirState{{Entries: []slave.EntryState{{Name: strings.Repeat("x", 256)}, {Name: "ok"}}}}, nil
	}
	s := begin(t, netPipe, tree)
	states, err := s.Survey(context.Background(), []slave.Query{{}})
	if err != nil || len(states[0].Entries) != 1 || states[0].Entries[0].Name != "ok" {
		t.Errorf("%+v, %v", states, err)
	}
	s.clean(t)
}

// A tree that answers too little must not bring the client out of step.
func TestTreeOutOfStepIsAnError(t *testing.T) {
	tree := newFake()
	tree.onSurvey = func(context.Context, []slave.Query) ([]slave.DirState, error) { return nil, nil }
	s := begin(t, netPipe, tree)
	if _, err := s.Survey(context.Background(), []slave.Query{{}}); err == nil {
		t.Error("nobody noticed")
	}
	s.finish(t)
}

const stdioChild = "GEOREP_TEST_STDIO"

// TestStdio serves over a real process's standard streams, which also prints where it should not.
func TestStdio(t *testing.T) {
	if os.Getenv(stdioChild) != "" {
		serveStdio()
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestStdio$")
	cmd.Env = append(os.Environ(), stdioChild+"=1")
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(context.Background(), &duplex{Reader: out, Writer: in, closers: []io.Closer{in, out}}, testHello())
	if err != nil {
		t.Fatal(err)
	}
	mustApply(t, c, putOp("a", pattern(3<<20)))
	c.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(stderr.String(), "stray words") {
		t.Errorf("%v, stderr %q", err, stderr)
	}
}

func serveStdio() {
	rw, err := Stdio()
	if err == nil {
		err = Serve(context.Background(), rw, "v", func(Hello) (slave.Reader, error) {
			os.Stdout.WriteString("stray words\n")
			if n, err := unix.FcntlInt(0, unix.F_GETPIPE_SZ, 0); err != nil || n < 256<<10 {
				return nil, fmt.Errorf("the pipe holds %d bytes, %v", n, err)
			}
			return newFake(), nil
		})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// The package must not depend on what implements it, or on the command.
func TestImports(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	allowed := map[string]bool{"georep/slave": true, "georep/slave/apply": true, "georep/slave/compress": true, "georep/marker/xtime": true,
		"georep/internal/beneath": true}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if strings.HasPrefix(path, "georep/") && !allowed[path] {
				t.Errorf("%s imports %s", name, path)
			}
		}
	}
}
