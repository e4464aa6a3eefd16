package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"georep/internal/screen"
	"georep/status"
)

// watchEvery is as often as a person reads; the monitor writes up to four times a second.
const watchEvery = time.Second

// watch shows the sessions again and again: on a screen of its own, or, where there is no terminal, or more is wanted than a screen
// has room for, as status does.
func (e *env) watch(c *cli.Context, sel selection) error {
	file, ok := e.out.(*os.File)
	if ok && terminal(file) && !c.Bool("json") && !c.Bool("detail") && !c.Bool("incoming") && os.Getenv("TERM") != "dumb" {
		return e.watchScreen(c, sel, file)
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := e.showStatus(c, sel); err != nil {
			return err
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}

// watchScreen takes the terminal over, and gives it back however it ends: by Ctrl-C, by Ctrl-Z for a while, or by trouble.
func (e *env) watchScreen(c *cli.Context, sel selection, out *os.File) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGWINCH, unix.SIGTSTP)
	defer signal.Stop(signals)
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	s := &screen.Screen{}
	text, err := e.drawn(s, sel, out)
	if err != nil { // before the terminal is touched
		return err
	}
	io.WriteString(out, screen.Enter+text)
	defer io.WriteString(out, screen.Leave)
	for {
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		case sig := <-signals:
			if sig == unix.SIGTSTP {
				io.WriteString(out, screen.Leave)
				if err := standStill(c.Context); err != nil {
					return err
				}
				io.WriteString(out, screen.Enter)
			}
		}
		text, err := e.drawn(s, sel, out)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
}

// standStill stops this process, as Ctrl-Z is meant to, until it is continued. The stop may come a moment after kill has returned.
func standStill(ctx context.Context) error {
	goesOn := make(chan os.Signal, 1)
	signal.Notify(goesOn, unix.SIGCONT)
	defer signal.Stop(goesOn)
	if err := unix.Kill(os.Getpid(), unix.SIGSTOP); err != nil {
		return err
	}
	select {
	case <-goesOn:
	case <-ctx.Done():
	}
	return nil
}

// drawn is the screen as it is to be now.
func (e *env) drawn(s *screen.Screen, sel selection, out *os.File) (string, error) {
	sessions, err := sel.sessions()
	if err != nil && len(sessions) == 0 {
		return "", err
	}
	width, height, terr := term.GetSize(int(out.Fd()))
	if terr != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	host, herr := os.Hostname()
	if herr != nil {
		host = "this host"
	}
	v := screen.View{Host: host, Now: time.Now(), Width: width, Height: height, Colour: colours(out), Unicode: unicodeTerminal()}
	if err != nil {
		v.Trouble = status.OneLine(err.Error())
	}
	return s.Draw(checked(sel.store, sessions, limitless), v), nil
}

// unicodeTerminal goes by the locale, as other programs do.
func unicodeTerminal() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(os.Getenv(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
