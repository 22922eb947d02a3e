package narinfo

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"unicode"

	"bigdisk/bundle/store"
)

// Parse reads a narinfo as Nix does, and more strictly: every line must end in
// a newline, no field but Sig may come twice, and hashes must be SHA-256.
// Fields that Nix does not know are passed over. StorePath, URL, NarHash and
// NarSize must be there. Errors wrap [ErrFormat] and name the line.
func Parse(data []byte) (*NarInfo, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%w: over %d bytes", ErrFormat, MaxSize)
	}
	n, seen := new(NarInfo), fields(0)
	rest := string(data)
	for line := 1; rest != ""; line++ {
		text, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return nil, fmt.Errorf("%w: line %d does not end in a newline", ErrFormat, line)
		}
		rest = after
		if err := n.parseLine(text, &seen); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", ErrFormat, line, err)
		}
	}
	if err := n.finish(seen); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return n, nil
}

// fields is a set of the names that have come.
type fields uint16

const (
	hasPath fields = 1 << iota
	hasURL
	hasCompression
	hasFileHash
	hasFileSize
	hasNarHash
	hasNarSize
	hasReferences
	hasDeriver
	hasSystem
	hasCA
)

func (n *NarInfo) parseLine(text string, seen *fields) error {
	name, value, ok := strings.Cut(text, ":")
	if !ok {
		return fmt.Errorf("%q has no colon", clip(text))
	}
	if value != "" {
		if value[0] != ' ' {
			return fmt.Errorf("no space after %q", clip(name)+":")
		}
		value = value[1:]
	}
	field, err := n.set(name, value)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if *seen&field != 0 {
		return fmt.Errorf("%s: it comes twice", name)
	}
	*seen |= field
	return nil
}

// set reads one field; it returns none for Sig and for what Nix does not know.
func (n *NarInfo) set(name, value string) (fields, error) {
	switch name {
	case "StorePath":
		return hasPath, setPath(&n.Info.Path, value, store.ParsePath)
	case "URL":
		return hasURL, setText(&n.URL, value)
	case "Compression":
		return hasCompression, setText(&n.Compression, value)
	case "FileHash":
		return hasFileHash, n.FileHash.UnmarshalText([]byte(value))
	case "FileSize":
		return hasFileSize, setSize(&n.FileSize, value)
	case "NarHash":
		return hasNarHash, n.Info.NarHash.UnmarshalText([]byte(value))
	case "NarSize":
		return hasNarSize, setSize(&n.Info.NarSize, value)
	case "References":
		return hasReferences, n.setReferences(value)
	case "Deriver":
		if value == "unknown-deriver" {
			return hasDeriver, nil
		}
		return hasDeriver, setPath(&n.Info.Deriver, value, store.ParseBase)
	case "System":
		return hasSystem, setText(&n.System, value)
	case "Sig":
		var sig string
		err := setText(&sig, value)
		n.Info.Sigs = append(n.Info.Sigs, sig)
		return 0, err
	case "CA":
		return hasCA, setText(&n.Info.CA, value)
	}
	return 0, nil
}

func (n *NarInfo) finish(seen fields) error {
	switch {
	case seen&hasPath == 0:
		return errors.New("StorePath is missing")
	case seen&hasNarHash == 0:
		return errors.New("NarHash is missing")
	case n.URL == "":
		return errors.New("URL is missing")
	case n.Info.NarSize == 0:
		return errors.New("NarSize is missing or zero")
	}
	if n.Compression == "" {
		n.Compression = "bzip2"
	}
	n.Info.SortReferences()
	n.Info.Sigs = sortedSet(n.Info.Sigs)
	return nil
}

func setPath(p *store.Path, value string, parse func(string) (store.Path, error)) error {
	v, err := parse(value)
	*p = v
	return err
}

// setSize reads a number of bytes.
func setSize(size *int64, value string) error {
	v, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not a number of bytes", clip(value))
	}
	*size = int64(v)
	return nil
}

// setText reads what may be anything printable.
func setText(text *string, value string) error {
	if i := strings.IndexFunc(value, unicode.IsControl); i >= 0 {
		return fmt.Errorf("%q has a control character", clip(value))
	}
	*text = value
	return nil
}

// setReferences reads the base names. They become parts of one string, since
// there may be thousands.
func (n *NarInfo) setReferences(value string) error {
	const dir = store.Dir + "/"
	count := 0
	for range words(value) {
		count++
	}
	if count == 0 {
		return nil
	}
	var all strings.Builder
	all.Grow(len(value) + count*len(dir))
	n.Info.References = make([]store.Path, 0, count)
	for base := range words(value) {
		start := all.Len()
		all.WriteString(dir)
		all.WriteString(base)
		ref, err := store.ParsePath(all.String()[start:])
		if err != nil {
			return err
		}
		n.Info.References = append(n.Info.References, ref)
	}
	return nil
}

// words gives what stands between the spaces of s.
func words(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for word := range strings.SplitSeq(s, " ") {
			if word != "" && !yield(word) {
				return
			}
		}
	}
}

// clip shortens what somebody else wrote before it goes into an error.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
