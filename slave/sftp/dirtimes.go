package sftp

import (
	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// keepTimes notes, durably, whose directories are about to lose their times: they are none that the
// batch is about, and no crawl would come to them after a cut. restoreTimes follows.
func (ch *changer) keepTimes(places []place) error {
	if len(places) == 0 {
		return nil
	}
	for _, p := range places {
		dir, _ := beneath.Split(p.path)
		if err := ch.idx.Set(index.Touched, "/"+dir, index.Entry{}); err != nil {
			return err
		}
	}
	return ch.flush()
}

// restoreTimes gives those directories their times back, and takes the notes away.
func (ch *changer) restoreTimes(places []place) error {
	for _, p := range places {
		dir, _ := beneath.Split(p.path)
		if err := ch.restoreTime(dir); err != nil {
			return err
		}
		if err := ch.idx.Delete(index.Touched, "/"+dir); err != nil {
			return err
		}
	}
	return nil
}

// mendTimes does that for what a cut left, when the slave is opened. A directory that is gone needs
// nothing.
func (ch *changer) mendTimes() error {
	var dirs []string
	err := ch.idx.Each(index.Touched, func(name string, _ index.Entry) bool {
		dirs = append(dirs, name[1:])
		return true
	})
	for _, dir := range dirs {
		if err == nil && ch.checkDirs(dir+"/x") == nil {
			err = ignoreAbsent(ch.restoreTime(dir))
		}
		if err == nil {
			err = ch.idx.Delete(index.Touched, "/"+dir)
		}
	}
	return err
}

// restoreTime gives a directory the times that are on record, as far as the protocol carries them.
// One that has none on record keeps what it has.
func (ch *changer) restoreTime(dir string) error {
	var meta *slave.Meta
	err := ch.updateDir(dir, func(e *index.Entry) { m := e.Meta; meta = &m })
	if err != nil || meta == nil || meta.Mtime.Sec == 0 {
		return err
	}
	sec := ch.seconds(meta.Mtime)
	return ch.any().Setstat(ch.abs(dir), wire.Attrs{Flags: wire.HasTimes, Atime: sec, Mtime: sec})
}
