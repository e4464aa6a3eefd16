package sftp

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

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
