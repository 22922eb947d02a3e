package rebuild

import (
	"bytes"
	"path"
	"slices"

	"bigdisk/bundle/store"
)

// mentions puts into files what a build in the Nix store leaves in them: where
// they lie, and where what they need lies.
type mentions struct {
	own  store.Path
	refs []store.Path
	self bool // own was put somewhere
}

// mostRunpath is how many directories a binary's RUNPATH has here.
const mostRunpath = 8

// add returns a file with its mentions:
//
//   - ELF files get a RUNPATH, where .dynstr is, and large ones the directory
//     of their data in .rodata;
//   - scripts get their interpreter from the first reference;
//   - what pkg-config, libtool and CMake read gets its prefix.
//
// Other files, such as headers, documentation and data, have none.
func (m *mentions) add(e *store.Entry, data []byte) []byte {
	switch {
	case e.Kind != store.Regular:
	case bytes.HasPrefix(data, []byte("\x7fELF")):
		data = insert(data, min(len(data)/2, 2048), m.runpath())
		if len(data) > 64<<10 {
			data = insert(data, len(data)/4*3, "\x00"+string(m.own)+"/share\x00")
		}
		m.self = true
	case bytes.HasPrefix(data, []byte("#!/")) && len(m.refs) > 0:
		data = insert(data, len("#!"), string(m.refs[0]))
	case slices.Contains([]string{".pc", ".la", ".cmake"}, path.Ext(e.Path)):
		data = insert(data, 0, "# prefix="+string(m.own)+"\n")
		m.self = true
	}
	return data
}

func (m *mentions) runpath() string {
	text := "\x00" + string(m.own) + "/lib"
	for _, r := range m.refs[:min(mostRunpath, len(m.refs))] {
		text += ":" + string(r) + "/lib"
	}
	return text + "\x00"
}

func insert(data []byte, at int, text string) []byte {
	return slices.Concat(data[:at], []byte(text), data[at:])
}

// storeDir is what comes before a digest wherever a store path is mentioned.
var storeDir = []byte(store.Dir + "/")

// replaceDigests replaces the digests of store paths that data mentions. It
// may change data, and returns it.
func replaceDigests(data []byte, digests map[string]string) []byte {
	for at := 0; ; {
		i := bytes.Index(data[at:], storeDir)
		if i < 0 {
			return data
		}
		at += i + len(storeDir)
		if len(data)-at < store.DigestLen {
			return data
		}
		if to, ok := digests[string(data[at:at+store.DigestLen])]; ok {
			copy(data[at:], to)
		}
	}
}
