package disk

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"georep/internal/beneath"
	"georep/slave"
)

// bin is trash/: what Clean has taken out of the park, and takes apart. It has no lock: what lies
// there is nobody else's. What is left there when a session ends, the next Clean takes apart.
type bin struct{ *records }

// scrapBatch is how many names of a directory are deleted before it is listed again.
const scrapBatch = 4096

// empty deletes what is in trash/, level by level: the directories in a directory are moved up into
// trash/, so that no depth is too deep. It is over when a round removes nothing. What cannot be
// deleted is logged and stays. It looks at the end of the session between any two names.
func (b *bin) empty(ctx context.Context) error {
	for progress := true; progress; {
		progress = false
		err := eachName(b.trash, func(name string) error {
			if err := b.live(ctx); err != nil {
				return err
			}
			did, err := b.scrapOne(ctx, name)
			progress = progress || did
			if err != nil && b.live(ctx) == nil {
				b.log.Warn().Str("name", name).Err(err).Msg("cannot delete a parked entry")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return b.live(ctx)
}

// scrapOne deletes one entry of trash/; a directory's directories are moved up. It tells whether it
// changed anything. An ordinary user's directory is opened up first; nobody else looks into trash/.
func (b *bin) scrapOne(ctx context.Context, name string) (progress bool, err error) {
	p := place{b.trash, name}
	b.forgetBeside(p)
	err = b.sys.unlink(p)
	if !errors.Is(err, unix.EISDIR) {
		return err == nil, err
	}
	if !b.root {
		if err := b.sys.chmod(b.trash.At(name), 0o700); err != nil {
			return false, err
		}
	}
	d, err := b.trash.OpenDir(name)
	if err != nil {
		return false, err
	}
	defer d.Close()
	for {
		did, more, last := b.scrapSome(ctx, d)
		progress = progress || did
		if did && more {
			continue
		}
		if last != nil {
			return progress, last
		}
		err := b.sys.rmdir(p)
		return progress || err == nil, err
	}
}

// scrapSome deletes or moves up the first names in d. more tells that there were others. It holds
// at most scrapBatch names in memory, however large the directory is.
func (b *bin) scrapSome(ctx context.Context, d *beneath.Dir) (progress, more bool, last error) {
	full := errors.New("enough")
	names := make([]string, 0, scrapBatch)
	err := d.List(func(e beneath.Entry) error {
		if len(names) == scrapBatch {
			return full
		}
		names = append(names, e.Name)
		return nil
	})
	more = err == full
	if err != nil && !more {
		return false, false, err
	}
	for _, name := range names {
		if err := b.live(ctx); err != nil {
			return progress, false, err
		}
		p := place{d, name}
		b.forgetBeside(p)
		err := b.sys.unlink(p)
		if errors.Is(err, unix.EISDIR) {
			err = b.moveUp(p)
		}
		if err != nil {
			last = err
			continue
		}
		progress = true
	}
	return progress, more, last
}

// moveUp removes an empty directory, or moves a full one into trash/.
func (b *bin) moveUp(p place) error {
	err := b.sys.rmdir(p)
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return b.move(p, place{b.trash, b.stagingName()}, entry{kind: slave.Dir})
}
