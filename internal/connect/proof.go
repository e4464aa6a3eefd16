package connect

import (
	"errors"
	"fmt"

	"georep/marker/xtime"
	"georep/slave"
	"georep/status"
	"georep/volume"
)

// proof is what the session knows of the slave that it has filled (invariant 16). One that an earlier version filled has no
// name on record, but a status.
func (c *Config) proof() (p slave.Proof, err error) {
	if c.Store == nil {
		return p, nil
	}
	now, err := c.Store.Session(c.Session.Master, c.Session.Slave)
	if errors.Is(err, volume.ErrNoSession) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if now.SlaveID != "" {
		if p.Slave, err = xtime.ParseUUID(now.SlaveID); err != nil {
			return p, fmt.Errorf("session %s %s: the name of its slave: %w", now.Master, now.Slave, err)
		}
	}
	st, err := status.Read(c.Store.Files(now.Master, now.Slave).Status)
	p.Filled = !p.Slave.IsZero() || err == nil && !st.LastSynced.IsZero()
	return p, nil
}

// remember keeps the name of the slave, before anything is sent to it.
func (c *Config) remember(known slave.Proof, id xtime.UUID) {
	if c.Store == nil || c.inspect || id.IsZero() || known.Slave == id {
		return
	}
	_, err := c.Store.UpdateSession(c.Session.Master, c.Session.Slave, func(s *volume.Session) error {
		s.SlaveID = id.String()
		return nil
	})
	if err != nil && !errors.Is(err, volume.ErrNoSession) {
		c.Logger.Warn().Err(err).Msg("the slave's name is not kept: another one in its place would not be noticed")
	}
}
