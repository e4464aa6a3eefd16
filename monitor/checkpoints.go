package monitor

import (
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"georep/internal/events"
	"georep/status"
	"georep/volume"
)

// recheck is how often the files of checkpoints are read, and written where that failed: a command sets one in another process.
const recheck = time.Second

// checkpoints are the session's. For one goroutine.
type checkpoints struct {
	files   volume.Files
	log     zerolog.Logger
	at      time.Time // of the last look at the files
	list    []volume.Checkpoint
	unsaved bool   // list says of some that they are complete, and the files do not yet
	said    string // the trouble that was logged last
}

// look returns the checkpoints that are complete since the last look. What it returns goes into the
// journal before save writes it, so a crash in between tells of it twice and never not at all.
func (c *checkpoints) look(now time.Time, st *status.Status) (done []volume.Checkpoint) {
	if age := now.Sub(c.at); (age < 0 || age >= recheck) && !c.unsaved {
		c.at = now
		list, err := c.files.Checkpoints()
		c.say(err)
		if err == nil {
			c.list = list
		}
	}
	fresh := false
	for i := range c.list {
		switch one := &c.list[i]; {
		case one.Completed.IsZero() && st.LastSynced.After(one.Time):
			one.Completed, one.Unseen, fresh = now.Round(0).UTC(), !st.Has(one.Time), true
			done = append(done, *one)
		case one.Unseen && st.Has(one.Time):
			one.Unseen, fresh = false, true
		}
	}
	if fresh {
		c.unsaved = true
		c.at = time.Time{} // saved at once
	}
	return done
}

// save makes durable what is complete. It tries again a second later where that fails.
func (c *checkpoints) save(now time.Time) {
	if c.unsaved && (now.Sub(c.at) >= recheck || now.Before(c.at)) {
		err := c.files.CompleteCheckpoints(c.list)
		c.say(err)
		c.at, c.unsaved = now, err != nil
	}
}

// say logs trouble once. say is quiet until the trouble is another one, or over.
func (c *checkpoints) say(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != c.said && err != nil {
		c.log.Error().Err(err).Msg("the checkpoints")
	}
	c.said = text
}

// completed is the event of a checkpoint that is complete.
func (c *chronicle) completed(one volume.Checkpoint) events.Event {
	text := fmt.Sprintf("The slave has everything up to the checkpoint %s (%s)", one.Name, one.Time.UTC().Format(time.RFC3339))
	if one.Unseen {
		text += ", but for what hidden writers may have written"
	}
	return events.Event{Kind: events.Checkpoint, Master: c.master, Slave: c.slave, Name: one.Name, Message: text}
}
