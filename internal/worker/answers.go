package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"georep/slave"
)

// answersEvery is how often is looked whether the slave answers.
const answersEvery = 5 * time.Second

// watchAnswers tells, once, when the slave leaves what it is asked unanswered although the
// connection holds, and with nil when it answers again, until the returned function is called. It
// ends nothing: a slow disk may need long. tell is called from a goroutine of its own, and not
// after stop has returned. A kind of slave that cannot say is not watched.
func watchAnswers(tree slave.Reader, tell func(error)) (stop func()) {
	asked, ok := tree.(interface {
		Unanswered() (request string, since time.Time)
	})
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		var told time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(answersEvery):
			}
			request, since := asked.Unanswered()
			if since.Equal(told) {
				continue
			}
			told = since
			tell(silence(request, since))
		}
	})
	return func() { cancel(); wg.Wait() }
}

// silence is nil where since is zero. The reason tells the operator where to look; nothing here is
// wrong.
func silence(request string, since time.Time) error {
	if since.IsZero() {
		return nil
	}
	return fmt.Errorf("the slave says that it is alive, but has answered nothing since %s (asked: %s): look at its host's disk; "+
		"it goes on by itself when the slave answers", since.UTC().Format(time.RFC3339), request)
}

// tellAnswers is watchAnswers for a command, which has no status: it is told in the log.
func tellAnswers(c *Config, tree slave.Reader) (stop func()) {
	log := c.Logger.With().Stringer("slave", c.Session.Slave).Logger()
	return watchAnswers(tree, func(silent error) {
		if silent != nil {
			log.Warn().Err(silent).Msg("waiting for the slave")
		} else {
			log.Warn().Msg("the slave answers again")
		}
	})
}
