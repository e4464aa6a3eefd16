package agent

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"georep/internal/beneath"
	"georep/marker/xtime"
	"georep/slave"
	"georep/slave/compress"
)

// Hello says who wants to replicate to what. It is the first thing that a client says. All of it is
// checked by both ends. What it asks for, the policy of the slave's host may refuse.
type Hello struct {
	Version string // of the client's georep, for messages
	Master  xtime.UUID
	Session xtime.UUID
	Volume  string // a name in the registry of the slave's host, or
	Path    string // a directory there; one of the two is ""
	Force   bool   // use a slave that is not empty, or belongs to another master
	Create  bool   // make the directory if it is missing
	// Proof is what the client knows of the slave that it has filled before.
	Proof  slave.Proof
	Stream uint32 // 0 begins a session; another one below MaxStreams joins it, and says all of the above again
	Token  Token  // of the session to join
	// Compressed says that what the client sends from its Welcome on is in the chunks of package compress, compressed as Mode
	// says, which the server need not know.
	Compressed bool
	Mode       compress.Mode
	// Inspect opens the slave beside the session's own worker, to be examined (slave.Examiner). A server that does not know
	// this ends the session: it must not take the slave's lock in its place.
	Inspect bool
	// DryRun, with Inspect, allows for a slave that nobody has filled yet, and for Force. A server that does not know this ends the
	// session.
	DryRun bool
	// Limits asks for what the slave's files cannot show, and Policy for what the policy of its host changes, which an older server
	// does not tell. Room asks for how many entries the slave's file system takes.
	Limits, Policy, Room bool
	// Promotion asks what made the slave the writable side, where something did.
	Promotion bool
}

// Token is the secret of a session that lets streams join it: the server makes it and tells it in the Welcome to stream
// 0. The zero Token is none.
// It never leaves the encrypted connection, and is compared in constant time.
type Token [16]byte

const (
	helloForce      = 1
	helloCreate     = 2
	helloCompressed = 4
	helloInspect    = 8
	helloFilled     = 16
	helloDryRun     = 32
)

// appendHello encodes a Hello that has passed its check.
func appendHello(b []byte, h *Hello) []byte {
	b = appendStr(b, h.Version)
	b = append(append(b, h.Master[:]...), h.Session[:]...)
	b = appendStr(appendStr(b, h.Volume), h.Path)
	b = append(b, bit(h.Force, helloForce)|bit(h.Create, helloCreate)|bit(h.Compressed, helloCompressed)|bit(h.Inspect, helloInspect)|
		bit(h.Proof.Filled, helloFilled)|bit(h.DryRun, helloDryRun))
	b = append(b, h.Proof.Slave[:]...)
	b = append(b, bit(h.Limits, capLimits)|bit(h.Policy, capPolicy)|bit(h.Room, capRoom)|bit(h.Promotion, capPromotion)) // capabilities asked for
	return append(binary.AppendUvarint(b, uint64(h.Stream)), h.Token[:]...)
}

// hello decodes and checks a Hello. Bits that are not known are an error, since they may ask for
// less than what this server would do.
func (d *decoder) hello() (h Hello) {
	h.Version = printable(d.str(maxVersion))
	h.Master, h.Session = d.id16(), d.id16()
	h.Volume, h.Path = d.str(maxName), d.str(maxPath)
	bits := d.bits(helloForce | helloCreate | helloCompressed | helloInspect | helloFilled | helloDryRun)
	h.Force, h.Create, h.Compressed = bits&helloForce != 0, bits&helloCreate != 0, bits&helloCompressed != 0
	h.Inspect, h.DryRun = bits&helloInspect != 0, bits&helloDryRun != 0
	h.Proof = slave.Proof{Filled: bits&helloFilled != 0, Slave: d.id16()}
	caps := d.uvarint(math.MaxUint64) // those that this end does not know are not granted, which is no error
	h.Limits, h.Policy, h.Room = caps&capLimits != 0, caps&capPolicy != 0, caps&capRoom != 0
	h.Promotion = caps&capPromotion != 0
	h.Stream, h.Token = uint32(d.uvarint(MaxStreams-1)), d.id16()
	if d.err == nil {
		d.err = h.check()
	}
	return h
}

// check tells what keeps a Hello from being sent, or accepted.
func (h *Hello) check() error {
	if (h.Volume == "") == (h.Path == "") || len(h.Volume) > maxName || len(h.Path) > maxPath {
		return malformed("the hello names volume %.64q and path %.64q; want one of them", h.Volume, h.Path)
	}
	if h.Master.IsZero() || h.Session.IsZero() {
		return malformed("the hello lacks the uuid of the master or of the session")
	}
	if h.Inspect && (h.Force && !h.DryRun || h.Create || h.Stream > 0) || h.DryRun && !h.Inspect {
		return malformed("an inspecting hello that would make or take something, or joins a session")
	}
	if h.Stream >= MaxStreams || h.Stream > 0 && h.Token == (Token{}) {
		return malformed("the hello of stream %d lacks its token, or there is no such stream", h.Stream)
	}
	return nil
}

// joins tells whether h, of a further stream, says the same as the hello that began the session. A
// session cannot change its mind with a later stream.
func (h *Hello) joins(first *Hello) bool {
	same := *h
	same.Version, same.Stream, same.Token = first.Version, first.Stream, first.Token
	return same == *first
}

// welcome is what a server says when it takes a stream. Only stream 0 needs to know of the last two.
type welcome struct {
	info   slave.Info
	token  Token // lets further streams join
	noMore error // why none can, in place of the token
}

// appendWelcome encodes a Welcome.
func appendWelcome(b []byte, w *welcome) []byte {
	return appendError(append(appendInfo(b, &w.info), w.token[:]...), w.noMore)
}

// welcome decodes and checks a Welcome.
func (d *decoder) welcome() (w welcome) {
	w.info = d.info()
	w.token = d.id16()
	w.noMore = d.error()
	return w
}

const (
	infoRoot  = 1
	infoClean = 2
	infoLinks = 4
)

// The capabilities: to tell of slave.Limits what the files cannot show, and of the policy; Info.FreeFiles, and
// Info.Promoted.
const (
	capLimits = 1
	capPolicy = 2
	capRoom   = 4

	capPromotion = 8
)

// maxPromoted bounds what is said of a promotion, in bytes.
const maxPromoted = 1 << 10

// maxConfined bounds what is said of an agent's confinement, in bytes.
const maxConfined = 1 << 10

// maxAncestors bounds the directories above a slave's root.
const maxAncestors = 4096

// appendInfo encodes what a tree says of itself. What is beyond the limits is cut, since it is for messages, or for
// comparing places that nobody has.
func appendInfo(b []byte, i *slave.Info) []byte {
	b = appendStr(b, clip(i.Version, maxVersion))
	b = appendStr(b, clip(i.Identity.BootID, maxName))
	b = appendStr(b, clip(string(i.Namespace), maxName))
	b = append(b, bit(i.Root, infoRoot)|bit(i.LinksClean, infoClean)|bit(i.Links, infoLinks))
	b = binary.AppendUvarint(b, uint64(max(i.Parked, 0)))
	b = binary.AppendUvarint(b, uint64(max(i.FreeBytes, 0)))
	b = append(appendStr(b, clip(i.Path, maxPath)), i.Slave[:]...)
	b = binary.AppendUvarint(append(b, i.Filter.GFID[:]...), uint64(i.Filter.Xtime))
	b = appendStr(b, clip(i.Confined, maxConfined))
	above := i.Identity.Ancestors[:min(len(i.Identity.Ancestors), maxAncestors)]
	b = binary.AppendUvarint(b, uint64(len(above)))
	for _, a := range above {
		b = appendStr(append(b, a.GFID[:]...), clip(a.FSID, maxName))
	}
	policy := i.Limits.Policy != slave.PolicyLimits{}
	b = append(b, bit(!i.Limits.None(), capLimits)|bit(policy, capPolicy)|bit(i.FreeFiles > 0, capRoom)|
		bit(i.Promoted != "", capPromotion)) // capabilities granted
	if !i.Limits.None() {
		b = appendLimits(b, &i.Limits)
	}
	if policy {
		b = appendPolicy(b, &i.Limits.Policy)
	}
	if i.FreeFiles > 0 {
		b = binary.AppendUvarint(b, uint64(i.FreeFiles))
	}
	if i.Promoted != "" {
		b = appendStr(b, clip(i.Promoted, maxPromoted))
	}
	return b
}

// info decodes and checks what a tree says of itself. The path stays as it is and must be quoted
// where it is shown. Everything that a person may read is made printable.
func (d *decoder) info() (i slave.Info) {
	i.Version, i.Identity.BootID = printable(d.str(maxVersion)), printable(d.str(maxName))
	ns := d.str(maxName)
	bits := d.bits(infoRoot | infoClean | infoLinks)
	i.Root, i.LinksClean, i.Links = bits&infoRoot != 0, bits&infoClean != 0, bits&infoLinks != 0
	i.Parked, i.FreeBytes = d.size(), d.size()
	i.Path, i.Slave = d.str(maxPath), d.id16()
	i.Filter = slave.Record{GFID: d.id16(), Xtime: xtime.Time(d.uvarint(math.MaxUint64))}
	i.Confined = printable(d.str(maxConfined))
	for n := d.uvarint(maxAncestors); n > 0 && d.err == nil; n-- {
		gfid := d.id16()
		i.Identity.Ancestors = append(i.Identity.Ancestors, beneath.Identity{GFID: gfid, FSID: d.str(maxName)})
	}
	caps := d.uvarint(math.MaxUint64)
	if caps&capLimits != 0 {
		i.Limits = d.limits()
	}
	if caps&capPolicy != 0 {
		i.Limits.Policy = d.policy()
	}
	if caps&capRoom != 0 {
		i.FreeFiles = d.size()
	}
	if caps&capPromotion != 0 {
		i.Promoted = printable(d.str(maxPromoted))
	}
	if d.err != nil {
		return i
	}
	var err error
	if i.Namespace, err = xtime.ParseNamespace(ns); err != nil {
		d.fail("%w", err)
	}
	return i
}

// magic begins what either end says. It holds bytes that no login banner has, and line ends that a terminal in
// between would have changed.
const magic = "\x00\xffgeorep-agent\r\n\x1a\n\xfe\x01"

// preface is said before any frame, in a form that no later protocol may change. It is the one part
// of the protocol that every version shares, so that two versions can tell each other what they
// are.
type preface struct {
	protocol uint32
	version  string
}

// append encodes the preface, its magic included.
func (p preface) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, magic...), p.protocol)
	v := clip(p.version, maxVersion)
	return append(append(b, byte(len(v))), v...)
}

// readPreface reads what follows the magic.
func readPreface(r *bufio.Reader) (p preface, err error) {
	var fixed [5]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return p, cutShort(err)
	}
	version := make([]byte, fixed[4])
	if _, err := io.ReadFull(r, version); err != nil {
		return p, cutShort(err)
	}
	return preface{protocol: binary.BigEndian.Uint32(fixed[:]), version: printable(string(version))}, nil
}

// findMagic reads up to the end of the magic, whatever a login shell said before it. It reads byte
// by byte, so nothing behind the magic is lost.
func findMagic(r *bufio.Reader) error {
	var seen []byte
	for !bytes.HasSuffix(seen, []byte(magic)) {
		c, err := r.ReadByte()
		if errors.Is(err, io.EOF) || err == nil && len(seen) == maxNoise+len(magic) {
			return noAgent(seen)
		}
		if err != nil {
			return fmt.Errorf("wait for the agent: %w", err)
		}
		seen = append(seen, c)
	}
	return nil
}

// maxQuoted is how much of a wrong answer an error message repeats.
const maxQuoted = 200

// NoAgentError is ErrNoAgent with what answered instead.
type NoAgentError struct {
	Said string // its first line, fit to be shown; "" for nothing
}

// Error says what the remote command did.
func (e *NoAgentError) Error() string {
	if e.Said == "" {
		return "the remote command ended without an answer"
	}
	return fmt.Sprintf("the remote command answered %q", e.Said)
}

// Is makes it ErrNoAgent.
func (e *NoAgentError) Is(target error) bool { return target == ErrNoAgent }

// noAgent quotes the first line of what came instead.
func noAgent(said []byte) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n")
	return &NoAgentError{Said: clip(line, maxQuoted)}
}

// expectMagic is findMagic where nothing may come before.
func expectMagic(r *bufio.Reader) error {
	got := make([]byte, len(magic))
	if _, err := io.ReadFull(r, got); err != nil {
		return cutShort(err)
	}
	if string(got) != magic {
		return malformed("the client began with %.40q; this command is run by georep itself, over ssh", got)
	}
	return nil
}

// versionError says that the ends do not fit, and which one is behind. The words name the hosts as
// the reader of the message at either end sees them. It names the host on which georep has to be
// upgraded, since the reader may sit at either.
func versionError(master, slaveEnd preface) error {
	behind := "slave"
	if master.protocol < slaveEnd.protocol {
		behind = "master"
	}
	return fmt.Errorf("%w: the master's host has georep %s (protocol %d), the slave's host georep %s (protocol %d); "+
		"upgrade georep on the %s's host", slave.ErrVersion, printable(master.version), master.protocol,
		printable(slaveEnd.version), slaveEnd.protocol, behind)
}

// cutShort makes of an end of file in the middle of something what it is.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
