package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxManifestElement bounds one element of an array or one small field, in
// bytes of JSON: a manifest may be as long as it likes, but not in one piece.
const maxManifestElement = 16 << 20

// maxManifestDepth bounds how deep a field may nest that this version does not
// know.
const maxManifestDepth = 64

// ErrManifest is wrapped by every error about what a manifest says.
var ErrManifest = errors.New("bad manifest")

// DecodeManifest reads what [Manifest.Encode] wrote. It is strict: another
// version, a missing field, a repeated one, a wrong type, a malformed store
// path or hash, paths that are unsorted or there twice, modules that are not on
// the disk, negative sizes and extents that overlap or lie outside the image
// are errors that wrap [ErrManifest] and name the place. Fields it does not
// know are skipped, since a later bigdisk may have added them without a change
// of version. Memory grows with the number of elements, not with their JSON.
func DecodeManifest(r io.Reader) (*Manifest, error) {
	d := &manifestDecoder{in: &meteredReader{r: r}}
	d.json = json.NewDecoder(d.in)
	if err := d.decode(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if err := d.m.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return &d.m, nil
}

// ManifestName is the file that describes the image in the file output.
func ManifestName(output string) string { return output + ".manifest.json" }

// ReadManifest decodes the manifest in the file name.
func ReadManifest(name string) (*Manifest, error) {
	f, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := DecodeManifest(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

// manifestDecoder reads the top-level object field by field.
type manifestDecoder struct {
	in   *meteredReader
	json *json.Decoder
	m    Manifest
}

func (d *manifestDecoder) decode() error {
	if err := d.delim('{'); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for d.json.More() {
		key, err := d.key()
		if err != nil {
			return err
		}
		if len(seen) == 0 && key != "version" {
			return fmt.Errorf("the first field is %q, not \"version\"", clipKey(key))
		}
		if seen[key] {
			return fmt.Errorf("field %q is there twice", clipKey(key))
		}
		if len(seen) >= 1000 {
			return errors.New("over 1000 fields")
		}
		seen[key] = true
		if err := d.field(key); err != nil {
			return fmt.Errorf("%s: %w (at byte %d)", clipKey(key), err, d.json.InputOffset())
		}
	}
	if err := d.delim('}'); err != nil {
		return err
	}
	for _, key := range []string{"version", "image", "options", "modules", "totals", "paths"} {
		if !seen[key] {
			return fmt.Errorf("no field %q", key)
		}
	}
	return d.end()
}

func (d *manifestDecoder) field(key string) error {
	switch key {
	case "version":
		if err := d.value(&d.m.Version); err != nil {
			return err
		}
		return d.m.checkVersion()
	case "image":
		return d.value(&d.m.Image)
	case "options":
		return d.value(&d.m.Options)
	case "lock":
		return d.value(&d.m.Lock)
	case "modules":
		return decodeList(d, &d.m.Modules)
	case "roots":
		return decodeList(d, &d.m.Roots)
	case "missing":
		return decodeList(d, &d.m.Missing)
	case "totals":
		return d.value(&d.m.Totals)
	case "verity":
		return d.value(&d.m.Verity)
	case "paths":
		return decodeList(d, &d.m.Paths)
	}
	return d.skip()
}

// value decodes the next value into v.
func (d *manifestDecoder) value(v any) error {
	d.in.left = maxManifestElement
	return noEOF(d.json.Decode(v))
}

// decodeList decodes the next value, an array, one element at a time.
func decodeList[T any](d *manifestDecoder, list *[]T) error {
	if err := d.delim('['); err != nil {
		return err
	}
	for d.json.More() {
		var v T
		if err := d.value(&v); err != nil {
			return fmt.Errorf("element %d: %w", len(*list), err)
		}
		*list = append(*list, v)
	}
	return d.delim(']')
}

// skip passes over the next value, whatever it is.
func (d *manifestDecoder) skip() error {
	for depth := 0; ; {
		t, err := d.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxManifestDepth {
				return fmt.Errorf("nested over %d deep", maxManifestDepth)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 {
			return nil
		}
	}
}

func (d *manifestDecoder) token() (json.Token, error) {
	d.in.left = maxManifestElement
	t, err := d.json.Token()
	return t, noEOF(err)
}

func (d *manifestDecoder) delim(want json.Delim) error {
	t, err := d.token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("%.40q where %q should be", fmt.Sprint(t), want.String())
	}
	return nil
}

func (d *manifestDecoder) key() (string, error) {
	t, err := d.token()
	if err != nil {
		return "", err
	}
	key, ok := t.(string)
	if !ok {
		return "", fmt.Errorf("%.40q where a field's name should be", fmt.Sprint(t))
	}
	return key, nil
}

// end makes sure that nothing follows the object.
func (d *manifestDecoder) end() error {
	d.in.left = maxManifestElement
	if _, err := d.json.Token(); err != io.EOF {
		return fmt.Errorf("something follows the manifest (at byte %d)", d.json.InputOffset())
	}
	return nil
}

// noEOF tells the end of the file in the middle of a manifest from a good one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func clipKey(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// meteredReader ends a value that is too long before it fills the memory: the
// decoder reads a value whole before it looks at it.
type meteredReader struct {
	r    io.Reader
	left int
}

func (m *meteredReader) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("a value is longer than %d bytes", maxManifestElement)
	}
	n, err := m.r.Read(p)
	m.left -= n
	return n, err
}
