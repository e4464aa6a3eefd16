package sftp

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"

	"georep/slave/sftp/wire"
)

// store keeps the nodes of the index as files below .georep/index.
type store struct{ t *Tree }

func (s store) Load(name string) ([]byte, error) {
	text, err := s.t.readSmall(indexDir + "/" + name)
	if errors.Is(err, fs.ErrNotExist) && !s.t.first().CanReplace() {
		return s.t.readSmall(indexDir + "/" + name + asideSuffix) // a cut in the middle of a replacement
	}
	return text, err
}

func (s store) Save(name string, text []byte) error {
	t := s.t
	temp, to := t.stagingName(), indexDir+"/"+name
	if err := t.create(temp, text); err != nil {
		return t.reason(err)
	}
	err := t.replace(temp, to, to+asideSuffix)
	if err != nil {
		if derr := t.ensureDir(indexDir + "/" + path.Dir(name)); derr != nil {
			return t.reason(derr)
		}
		err = t.replace(temp, to, to+asideSuffix)
	}
	if err != nil {
		_ = t.any().Remove(t.abs(temp))
	}
	return t.reason(err)
}

func (s store) Remove(name string) error {
	return ignoreAbsent(s.t.any().Remove(s.t.abs(indexDir + "/" + name)))
}

var logNames = [2]string{base + "journal.0", base + "journal.1"}

// logFile is one of the journal's two files.
type logFile struct {
	t    *Tree
	f    *wire.Handle
	size int64
}

// newLog opens a log and empties it.
func (t *Tree) newLog(name string) (*logFile, error) {
	f, err := t.any().Open(t.abs(name), wire.OpenRead|wire.OpenWrite|wire.OpenCreate|wire.OpenTrunc,
		wire.Attrs{Flags: wire.HasMode, Mode: 0o600})
	return &logFile{t: t, f: f}, err
}

// Append writes at the end.
func (l *logFile) Append(text []byte) error {
	if err := l.f.WriteAll(text, l.size, true); err != nil {
		return l.t.reason(err)
	}
	l.size += int64(len(text))
	return nil
}

// Clear empties the file.
func (l *logFile) Clear() error {
	if err := l.f.Setstat(wire.Attrs{Flags: wire.HasSize}); err != nil {
		return err
	}
	l.size = 0
	return nil
}

// noFile tells that nothing is there, or nothing that could have it.
func noFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
