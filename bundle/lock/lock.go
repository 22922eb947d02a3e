// Package lock reads, selects from and extends the lock file of a set of Nix
// modules (modules.json): which versions of which module there are, and the
// store path of each.
//
// In flows the file's text, out flow [Entry] values in the file's order; back
// flow new entries at its end. The format is that of the nixmodules
// repository: a JSON object from "ID:TAG" to the commit a version was made
// from and the store path that it became.
//
//	{
//	  "go-1.19:v1-20230525-c48c43c": {
//	    "commit": "c48c43c6c698223ed3ce2abc5a2d708735a77d5b",
//	    "path": "/nix/store/l08f5vl1af9rpzd7kvr0l5gx9v7y8p12-replit-module-go-1.19"
//	  }
//	}
package lock

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"bigdisk/bundle/store"
)

// ErrFormat is wrapped by every error about what a lock file, module ID, tag
// or commit looks like.
var ErrFormat = errors.New("malformed lock file")

// MaxIDLen is the longest module ID in bytes. IDs become parts of file names.
const MaxIDLen = 200

// File is a lock file that has been read and checked.
type File struct {
	// Entries are the locked versions in the file's order. Their keys are
	// distinct.
	Entries []Entry
	// SHA256 is the hash of the file's bytes, and Size their number.
	SHA256 [sha256.Size]byte
	Size   int64

	style style
	end   int64 // offset after the last entry, or after the opening brace
}

// Entry is one locked version of a module.
type Entry struct {
	ID     ID
	Tag    Tag
	Commit Commit
	Path   store.Path
	// Line is where the entry's key stands in the file, from 1; 0 if it does
	// not come from a file.
	Line int
}

// Key returns "ID:TAG", the entry's name in the file.
func (e Entry) Key() string { return string(e.ID) + ":" + e.Tag.String() }

// ID names a module, e.g. "go-1.19": 1 to [MaxIDLen] characters of
// [0-9A-Za-z+._-], of which the first is a letter or digit.
type ID string

// ParseID checks s.
func ParseID(s string) (ID, error) {
	if err := checkID(s); err != nil {
		return "", fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return ID(s), nil
}

// checkID says what keeps s from being a module ID.
func checkID(s string) error {
	if s == "" || len(s) > MaxIDLen {
		return fmt.Errorf("a module ID has 1 to %d characters, %q has %d", MaxIDLen, clip(s), len(s))
	}
	for i, r := range s {
		switch {
		case r < utf8.RuneSelf && alphanumeric(byte(r)):
		case !strings.ContainsRune("+._-", r):
			return fmt.Errorf("module ID %q has %q", s, r)
		case i == 0:
			return fmt.Errorf("module ID %q starts with %q, not with a letter or digit", s, r)
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || digit(c)
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

func hexDigit(c byte) bool { return digit(c) || 'a' <= c && c <= 'f' }

// Tag names a version of a module: "vN-YYYYMMDD-SHORTSHA". Tags are comparable.
type Tag struct {
	// Version counts the module's versions, from 1.
	Version int
	// Date is the day of the commit.
	Date Date
	// Short is the first [ShortLen] digits of the commit.
	Short string
}

// ShortLen is the number of digits in a short commit.
const ShortLen = 7

// maxVersionLen keeps versions within an int everywhere.
const maxVersionLen = 9

// parseTag checks s. The version has no leading zeros, the date must be a real
// one from 1970 on.
func parseTag(s string) (Tag, error) {
	version, rest, ok := strings.Cut(s, "-")
	date, short, ok2 := strings.Cut(rest, "-")
	if !ok || !ok2 || version == "" || version[0] != 'v' {
		return Tag{}, fmt.Errorf("%w: tag %q is not vN-YYYYMMDD-SHORTSHA", ErrFormat, clip(s))
	}
	n, err := parseVersion(version[1:])
	if err != nil {
		return Tag{}, fmt.Errorf("%w: tag %q: %w", ErrFormat, clip(s), err)
	}
	day, err := parseDate(date)
	if err != nil {
		return Tag{}, fmt.Errorf("%w: tag %q: %w", ErrFormat, clip(s), err)
	}
	if len(short) != ShortLen || !allHex(short) {
		return Tag{}, fmt.Errorf("%w: tag %q: %q is not a commit's first %d hexadecimal digits", ErrFormat, clip(s), clip(short), ShortLen)
	}
	return Tag{n, day, short}, nil
}

func parseVersion(s string) (int, error) {
	if s == "" || len(s) > maxVersionLen || s[0] == '0' {
		return 0, fmt.Errorf("%q is not a version (1, 2, …)", clip(s))
	}
	n := 0
	for i := range len(s) {
		if !digit(s[i]) {
			return 0, fmt.Errorf("%q is not a version (1, 2, …)", s)
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, nil
}

func allHex[T string | []byte](s T) bool {
	for i := range len(s) {
		if !hexDigit(s[i]) {
			return false
		}
	}
	return true
}

// String returns the form that parseTag reads.
func (t Tag) String() string {
	return "v" + strconv.Itoa(t.Version) + "-" + t.Date.String() + "-" + t.Short
}

// compare orders the tags of one module from old to new.
func (t Tag) compare(u Tag) int {
	if t.Version != u.Version {
		return t.Version - u.Version
	}
	return int(t.Date) - int(u.Date)
}

// Date is a day as the decimal number YYYYMMDD.
type Date int32

// String returns the eight digits.
func (d Date) String() string { return fmt.Sprintf("%08d", int32(d)) }

func parseDate(s string) (Date, error) {
	n := 0
	for i := range len(s) {
		if !digit(s[i]) || len(s) != len("YYYYMMDD") {
			return 0, fmt.Errorf("%q is not a date YYYYMMDD", clip(s))
		}
		n = n*10 + int(s[i]-'0')
	}
	year, month, day := n/10000, n/100%100, n%100
	if year < 1970 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, fmt.Errorf("%q is not a date", clip(s))
	}
	return Date(n), nil
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// Commit is the Git commit that a version was made from.
type Commit [20]byte

// ParseCommit reads 40 lower-case hexadecimal digits.
func ParseCommit(s string) (Commit, error) { return parseCommit(s) }

func parseCommit[T string | []byte](s T) (Commit, error) {
	var c Commit
	if len(s) != hex.EncodedLen(len(c)) || !allHex(s) {
		return c, fmt.Errorf("%w: %q is not a commit, 40 lower-case hexadecimal digits", ErrFormat, clip(string(s)))
	}
	for i := range c {
		c[i] = hexValue(s[2*i])<<4 | hexValue(s[2*i+1])
	}
	return c, nil
}

// hexValue is the value of a hexDigit.
func hexValue(c byte) byte {
	if digit(c) {
		return c - '0'
	}
	return c - 'a' + 10
}

// String returns the 40 digits.
func (c Commit) String() string { return hex.EncodeToString(c[:]) }

// ParseKey reads "ID:TAG".
func ParseKey(s string) (ID, Tag, error) {
	before, after, ok := strings.Cut(s, ":")
	if !ok {
		return "", Tag{}, fmt.Errorf("%w: %q is not ID:TAG", ErrFormat, clip(s))
	}
	id, err := ParseID(before)
	if err != nil {
		return "", Tag{}, err
	}
	tag, err := parseTag(after)
	return id, tag, err
}

// check says whether an entry's parts go together.
func (e *Entry) check() error {
	var digits [2 * len(e.Commit)]byte
	hex.Encode(digits[:], e.Commit[:])
	if short := digits[:ShortLen]; string(short) != e.Tag.Short {
		return fmt.Errorf("%w: the tag ends in %s, but the commit starts with %s", ErrFormat, e.Tag.Short, string(short))
	}
	return nil
}

// clip shortens what somebody else wrote before it goes into an error.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
