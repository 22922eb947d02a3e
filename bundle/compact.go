package bundle

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"bigdisk/bundle/store"
)

// arena keeps many small strings in few large pieces of memory.
type arena struct{ chunk *strings.Builder }

const arenaChunk = 256 << 10

// keep returns a copy of s.
func (a *arena) keep(s string) string {
	if len(s) > arenaChunk/8 {
		return strings.Clone(s)
	}
	if a.chunk == nil || len(s) > a.chunk.Cap()-a.chunk.Len() {
		a.chunk = new(strings.Builder)
		a.chunk.Grow(arenaChunk)
	}
	start := a.chunk.Len()
	a.chunk.WriteString(s)
	return a.chunk.String()[start:]
}

// names gives numbers to the few names that keys have.
type names struct {
	list []string
	ids  map[string]uint64
}

// maxNames keeps hostile signatures from filling the table.
const maxNames = 1 << 10

// number returns the number of a name, and whether it has one.
func (n *names) number(name string) (uint64, bool) {
	id, ok := n.ids[name]
	if ok || len(n.list) >= maxNames {
		return id, ok
	}
	if n.ids == nil {
		n.ids = make(map[string]uint64)
	}
	name = strings.Clone(name)
	id = uint64(len(n.list))
	n.list = append(n.list, name)
	n.ids[name] = id
	return id, true
}

// packRest writes what few have a use for in few bytes: the deriver, the content
// address and the signatures, each with its length before it. A signature is
// the number of its key's name and its bytes; one that does not follow the
// usual form is its text, after a zero.
func packRest(info *store.PathInfo, keys *names) string {
	var b []byte
	deriver := strings.TrimPrefix(string(info.Deriver), store.Dir+"/")
	b = packText(b, deriver)
	b = packText(b, info.CA)
	for _, sig := range info.Sigs {
		b = packSig(b, sig, keys)
	}
	return string(b)
}

func packText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func packSig(b []byte, sig string, keys *names) []byte {
	name, encoded, ok := strings.Cut(sig, ":")
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if ok && err == nil && base64.StdEncoding.EncodeToString(raw) == encoded {
		if id, ok := keys.number(name); ok {
			b = binary.AppendUvarint(b, id+1)
			return packText(b, string(raw))
		}
	}
	return packText(append(b, 0), sig)
}

// unpackRest reads what packRest wrote.
func unpackRest(s string, keys []string, info *store.PathInfo) {
	deriver, s := unpackText(s)
	if deriver != "" {
		info.Deriver = store.Path(store.Dir + "/" + deriver)
	}
	info.CA, s = unpackText(s)
	for s != "" {
		var key uint64
		var text string
		key, s = unpackNumber(s)
		text, s = unpackText(s)
		if key > 0 {
			text = keys[key-1] + ":" + base64.StdEncoding.EncodeToString([]byte(text))
		}
		info.Sigs = append(info.Sigs, text)
	}
}

func unpackNumber(s string) (uint64, string) {
	v, n := uint64(0), 0
	for ; s[n] >= 0x80; n++ {
		v |= uint64(s[n]&0x7f) << (7 * n)
	}
	return v | uint64(s[n])<<(7*n), s[n+1:]
}

func unpackText(s string) (string, string) {
	n, s := unpackNumber(s)
	return s[:n], s[n:]
}
