package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
)

// byteSize is a flag of bytes: a number, or one with K, M, G or T after it for
// powers of 1024. Zero is unset.
type byteSize int64

var byteUnits = []struct {
	suffix string
	bytes  int64
}{{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}}

// Set reads a size.
func (b *byteSize) Set(s string) error {
	digits, unit := strings.ToUpper(s), int64(1)
	for _, u := range byteUnits {
		if rest, ok := strings.CutSuffix(digits, u.suffix); ok {
			digits, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 31)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not a size: write bytes, or 128K or 1M", s)
	}
	*b = byteSize(int64(n) * unit)
	return nil
}

// String writes the size in its largest whole unit.
func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	for i := len(byteUnits) - 1; i >= 0; i-- {
		if u := byteUnits[i]; int64(*b)%u.bytes == 0 {
			return strconv.FormatInt(int64(*b)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

// Type names the value in the help.
func (b *byteSize) Type() string { return "SIZE" }

// UnmarshalYAML reads a size from a configuration file.
func (b *byteSize) UnmarshalYAML(n ast.Node) error { return setFromNode(b, n) }

// owner is a flag UID:GID.
type owner struct{ uid, gid uint32 }

// Set reads UID:GID.
func (o *owner) Set(s string) error {
	u, g, ok := strings.Cut(s, ":")
	uid, errU := strconv.ParseUint(u, 10, 32)
	gid, errG := strconv.ParseUint(g, 10, 32)
	if !ok || errU != nil || errG != nil {
		return fmt.Errorf("%q is not UID:GID, two numbers as in 0:0", s)
	}
	*o = owner{uint32(uid), uint32(gid)}
	return nil
}

// String writes UID:GID.
func (o *owner) String() string { return fmt.Sprintf("%d:%d", o.uid, o.gid) }

// Type names the value in the help.
func (o *owner) Type() string { return "UID:GID" }

// UnmarshalYAML reads UID:GID from a configuration file.
func (o *owner) UnmarshalYAML(n ast.Node) error { return setFromNode(o, n) }

// setFromNode sets a flag's value from a scalar in a configuration file, so
// that errors show the place.
func setFromNode(value interface{ Set(string) error }, n ast.Node) error {
	token := n.GetToken()
	scalar, ok := n.(ast.ScalarNode)
	if !ok {
		return &yaml.SyntaxError{Message: "one value is wanted here, not several", Token: token}
	}
	if err := value.Set(fmt.Sprint(scalar.GetValue())); err != nil {
		return &yaml.SyntaxError{Message: err.Error(), Token: token}
	}
	return nil
}
