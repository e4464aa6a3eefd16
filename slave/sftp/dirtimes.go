package sftp

import (
	"georep/internal/beneath"
	"georep/slave"
	"georep/slave/sftp/index"
	"georep/slave/sftp/wire"
)

// touches notes, durably, whose directories are about to lose their times: they are none that the batch is about, and no
// crawl would come to them after a cut.
func (ch *changer) touches(places []place) error {
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

// asTheyWere gives those directories their times back.
func (ch *changer) asTheyWere(places []place) error {
	for _, p := range places {
		dir, _ := beneath.Split(p.path)
		if err := ch.asItWas(dir); err != nil {
			return err
		}
		if err := ch.idx.Delete(index.Touched, "/"+dir); err != nil {
			return err
		}
	}
	return nil
}

// mendTouched does that for what a cut left.
func (ch *changer) mendTouched() error {
	var dirs []string
	err := ch.idx.Each(index.Touched, func(name string, _ index.Entry) bool {
		dirs = append(dirs, name[1:])
		return true
	})
	for _, dir := range dirs {
		if err == nil && ch.checkDirs(dir+"/x") == nil {
			err = ignoreAbsent(ch.asItWas(dir))
		}
		if err == nil {
			err = ch.idx.Delete(index.Touched, "/"+dir)
		}
	}
	return err
}

// asItWas gives a directory the times that are on record.
func (ch *changer) asItWas(dir string) error {
	var meta *slave.Meta
	err := ch.ofDir(dir, func(e *index.Entry) { m := e.Meta; meta = &m })
	if err != nil || meta == nil || meta.Mtime.Sec == 0 {
		return err
	}
	sec := ch.seconds(meta.Mtime)
	return ch.any().Setstat(ch.abs(dir), wire.Attrs{Flags: wire.HasTimes, Atime: sec, Mtime: sec})
}
