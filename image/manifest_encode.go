package image

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Encode writes the manifest as JSON: a field a line, and in arrays an element
// a line, so that tools that work by line (diff, grep, split) do well with it
// and it is never in memory as a whole. "version" is the first field and
// "paths" the last. A manifest that [DecodeManifest] would refuse is an error.
func (m *Manifest) Encode(w io.Writer) error {
	if err := m.validate(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	e := newManifestEncoder(w)
	e.field("version", m.Version)
	e.field("image", m.Image)
	e.field("options", m.Options)
	if m.Lock != nil {
		e.field("lock", m.Lock)
	}
	encodeList(e, "modules", m.Modules)
	if len(m.Roots) > 0 {
		encodeList(e, "roots", m.Roots)
	}
	if len(m.Missing) > 0 {
		encodeList(e, "missing", m.Missing)
	}
	e.field("totals", m.Totals)
	if m.Verity != nil {
		e.field("verity", m.Verity)
	}
	encodeList(e, "paths", m.Paths)
	return e.end()
}

// manifestEncoder writes one JSON object and keeps the first error.
type manifestEncoder struct {
	out   *bufio.Writer
	first bool
	err   error
}

func newManifestEncoder(w io.Writer) *manifestEncoder {
	e := &manifestEncoder{out: bufio.NewWriterSize(w, 64<<10), first: true}
	e.out.WriteByte('{')
	return e
}

func (e *manifestEncoder) key(name string) {
	if !e.first {
		e.out.WriteByte(',')
	}
	e.first = false
	fmt.Fprintf(e.out, "\n  %q: ", name)
}

func (e *manifestEncoder) field(name string, v any) {
	e.key(name)
	e.value(v)
}

func (e *manifestEncoder) value(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		e.err = err
		return
	}
	e.out.Write(b)
}

func encodeList[T any](e *manifestEncoder, name string, list []T) {
	e.key(name)
	e.out.WriteByte('[')
	for i := range list {
		if i > 0 {
			e.out.WriteByte(',')
		}
		e.out.WriteString("\n    ")
		e.value(&list[i])
	}
	if len(list) > 0 {
		e.out.WriteString("\n  ")
	}
	e.out.WriteByte(']')
}

func (e *manifestEncoder) end() error {
	e.out.WriteString("\n}\n")
	if e.err != nil {
		return fmt.Errorf("manifest: %w", e.err)
	}
	return e.out.Flush()
}
