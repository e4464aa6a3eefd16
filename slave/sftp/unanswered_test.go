package sftp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"georep/marker/xtime"
	"georep/slave/sftp/wire"
)

// TestServerThatAnswersNothing: a server that was asked, and does nothing, is told of until it answers; one that is not asked is not.
func TestServerThatAnswersNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			io.ReadFull(far, make([]byte, 9))
			far.Write([]byte{0, 0, 0, 5, 2, 0, 0, 0, 3}) // its version
			io.Copy(io.Discard, far)
		}()
		c, err := wire.New(context.Background(), near)
		if err != nil {
			t.Fatal(err)
		}
		h := &host{}
		h.join(c)
		told := func(want bool) {
			t.Helper()
			if request, since := h.Unanswered(); since.IsZero() == want || (request == "") == want {
				t.Errorf("%q is unanswered since %v", request, since)
			}
		}
		time.Sleep(24 * time.Hour)
		told(false)
		go c.Lstat("x")
		time.Sleep(50 * time.Second)
		told(false)
		time.Sleep(20 * time.Second)
		told(true)
		far.Write([]byte{0, 0, 0, 17, 101, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0}) // no such file
		synctest.Wait()
		told(false)
		c.Close()
		far.Close()
	})
}

// TestOpeningThatIsNotAnswered: a server that is reached, and answers nothing while the slave is opened, is given up with what it was
// asked and since when. One session of several that is silent is only one less.
func TestOpeningThatIsNotAnswered(t *testing.T) {
	for name, answers := range map[string]int{"nothing": 0, "its version": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer far.Close()
				go func() {
					io.ReadFull(far, make([]byte, 9))
					if answers > 0 {
						far.Write([]byte{0, 0, 0, 5, 2, 0, 0, 0, 3})
					}
					io.Copy(io.Discard, far)
				}()
				began := time.Now()
				_, err := Open(context.Background(), Options{Path: "/s", Host: "far", Master: xtime.UUID{1}, Session: xtime.UUID{2}, Streams: 1,
					Logger: zerolog.Nop(), Open: func(context.Context, int) (io.ReadWriteCloser, error) { return near, nil }})
				if took := time.Since(began); !errors.Is(err, ErrSilent) || took < patience || took > 2*patience {
					t.Errorf("after %v: %v", took, err)
				}
				if err != nil && !strings.Contains(err.Error(), began.UTC().Format(time.RFC3339)) {
					t.Errorf("%v does not say since when", err)
				}
			})
		})
	}
}
