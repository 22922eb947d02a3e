package storedb

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"bigdisk/bundle/store"
)

// What is read of a derivation is bounded by these.
const (
	maxOutputs = 10000
	maxString  = 4096
)

// ReadOutputs reads the outputs of the derivation drv, sorted by name, from r,
// the contents of its file (Nix's ATerm form, libstore's parseDerivation). It
// reads no further than their list. Outputs whose path is only known once they
// are built have no path, and are left out as Nix leaves them out.
func ReadOutputs(drv store.Path, r io.Reader) ([]Output, error) {
	d := aterm{r: bufio.NewReader(r)}
	d.start()
	var outs []Output
	for more := d.list(); more; more = d.more() {
		o, err := d.output(drv)
		if err != nil {
			return nil, fmt.Errorf("derivation %s: %w", drv, err)
		}
		if o.Path != "" {
			outs = append(outs, o)
		}
		if len(outs) > maxOutputs {
			return nil, fmt.Errorf("derivation %s: more than %d outputs", drv, maxOutputs)
		}
	}
	if d.err != nil {
		return nil, fmt.Errorf("derivation %s: %w", drv, d.err)
	}
	slices.SortFunc(outs, Output.compare)
	for i := 1; i < len(outs); i++ {
		if outs[i].Name == outs[i-1].Name {
			return nil, fmt.Errorf("derivation %s: output %s comes twice", drv, outs[i].Name)
		}
	}
	return outs, nil
}

// aterm reads the start of a derivation. The first failure is kept, and makes
// every later call return at once.
type aterm struct {
	r   *bufio.Reader
	err error
}

// next returns the next byte, 0 after a failure.
func (d *aterm) next() byte {
	if d.err != nil {
		return 0
	}
	c, err := d.r.ReadByte()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	d.err = err
	return c
}

// want reads s.
func (d *aterm) want(s string) {
	for i := range len(s) {
		if c := d.next(); d.err == nil && c != s[i] {
			d.err = fmt.Errorf("%q where %q should be", c, s)
		}
	}
}

// start reads what comes before the list of outputs. Derivations that use
// dynamic ones name a version of the format.
func (d *aterm) start() {
	if b, _ := d.r.Peek(2); string(b) == "Dr" {
		d.want(`DrvWithVersion("xp-dyn-drv",`)
		return
	}
	d.want("Derive(")
}

// list opens a list and reports whether it has an element.
func (d *aterm) list() bool {
	d.want("[")
	if b, _ := d.r.Peek(1); string(b) == "]" {
		return false
	}
	return d.err == nil
}

// more reads what follows an element and reports whether there is another.
func (d *aterm) more() bool {
	c := d.next()
	if d.err == nil && c != ',' && c != ']' {
		d.err = fmt.Errorf("%q where , or ] should be", c)
	}
	return d.err == nil && c == ','
}

// output reads an output: name, path, hash algorithm, hash.
func (d *aterm) output(drv store.Path) (Output, error) {
	var field [4]string
	d.want("(")
	for i := range field {
		if i > 0 {
			d.want(",")
		}
		field[i] = d.text()
	}
	d.want(")")
	o := Output{Drv: drv, Name: field[0], Path: store.Path(field[1])}
	if d.err != nil {
		return o, d.err
	}
	if err := checkOutputName(o.Name); err != nil {
		return o, err
	}
	if o.Path != "" {
		if _, err := store.ParsePath(field[1]); err != nil {
			return o, fmt.Errorf("output %s: %w", o.Name, err)
		}
	}
	return o, nil
}

// text reads a string in quotes.
func (d *aterm) text() string {
	d.want(`"`)
	var b []byte
	for len(b) <= maxString {
		c := d.next()
		if d.err != nil || c == '"' {
			return string(b)
		}
		if c == '\\' {
			c = unescape(d.next())
		}
		b = append(b, c)
	}
	d.err = fmt.Errorf("a string is longer than %d bytes", maxString)
	return ""
}

// unescape gives the character that c stands for after a backslash.
func unescape(c byte) byte {
	switch c {
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}
