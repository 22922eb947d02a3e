// Package guest is how a host says which version of a disk it runs: a report
// in the guest attributes of a Compute Engine instance.
//
// On the host, a [Report] flows through a [Writer] to the metadata server; in a
// rollout, the attributes that the Compute Engine API gives flow through [Parse].
// The namespace is the service's name, and each field is a key of its own:
//
//	version  the version that the report is about
//	health   ok, pending or failed
//	error    why it failed, "-" otherwise
//	current  the version in use, "-" for none
//	boot     the boot ID of the host's kernel
//	time     when the report was made, RFC 3339 in UTC
//	sum      a digest of all the others
//
// Keys are written one by one, and the service may drop some of them, so a
// reader may see half a report: version is new, and health still tells of the
// one before. sum is written last and does not match then: [ErrTorn], which is
// no report at all. Whatever runs on a host can write its guest attributes: a
// report is a friend's word, not a proof.
package guest

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Health is what has become of a version on a host.
type Health string

const (
	// OK: the version is checked, mounted, and current.
	OK Health = "ok"
	// Pending: its disk is there and is being checked.
	Pending Health = "pending"
	// Failed: it was refused; what was current before still is.
	Failed Health = "failed"
)

// The keys, in the order in which they are written.
const (
	keyVersion = "version"
	keyHealth  = "health"
	keyError   = "error"
	keyCurrent = "current"
	keyBoot    = "boot"
	keyTime    = "time"
	keySum     = "sum"
)

// nothing stands for an empty value: whether the service takes one is not
// documented.
const nothing = "-"

// keys are all but sum, which comes after them.
var keys = [...]string{keyVersion, keyHealth, keyError, keyCurrent, keyBoot, keyTime}

const (
	// MaxError is how much of an error's text is reported, in bytes.
	MaxError = 1024
	// maxText bounds versions and boot IDs, in bytes.
	maxText = 256
)

var (
	// ErrNone means that a host has not reported yet.
	ErrNone = errors.New("no report")
	// ErrTorn means that a report is only half there, because it is being
	// written or because parts were dropped. Read again later.
	ErrTorn = errors.New("the report is only half there")
	// ErrMalformed is wrapped by errors about attributes that no host of ours
	// writes.
	ErrMalformed = errors.New("malformed report")
)

// Report is what a host says about one service.
type Report struct {
	// Version is what the report is about: the version of the disk that was
	// attached last, not necessarily the one in use.
	Version string `json:"version"`
	Health  Health `json:"health"`
	// Error says why Version failed; "" if it did not.
	Error string `json:"error,omitempty"`
	// Current is the version in use; "" if there is none.
	Current string `json:"current,omitempty"`
	// BootID is the kernel's /proc/sys/kernel/random/boot_id.
	BootID string `json:"bootID"`
	// Time is when the report was made by the host's clock, in whole seconds.
	Time time.Time `json:"time"`
}

// Attributes returns the report as guest attributes, sum included.
func (r Report) Attributes() map[string]string {
	a := map[string]string{
		keyVersion: r.Version, keyHealth: string(r.Health), keyError: cmp.Or(oneLine(r.Error, MaxError), nothing),
		keyCurrent: cmp.Or(r.Current, nothing), keyBoot: r.BootID, keyTime: r.Time.UTC().Format(time.RFC3339),
	}
	a[keySum] = sum(a)
	return a
}

// sum is a digest of all keys but itself: the first 16 hexadecimal digits of
// the SHA-256 of their names and values.
func sum(a map[string]string) string {
	h := sha256.New()
	for _, k := range keys {
		fmt.Fprintf(h, "%s=%q\n", k, a[k])
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// Parse reads the guest attributes of one namespace, by their keys. It returns
// [ErrNone] if there are none, an error that wraps [ErrTorn] for half a report
// and one that wraps [ErrMalformed] for what is no report. Keys that it does not know
// are left alone. Attributes without a sum, which others than [Writer] may
// write, are taken as they are.
func Parse(attributes map[string]string) (Report, error) {
	if len(attributes) == 0 {
		return Report{}, ErrNone
	}
	for _, k := range []string{keyVersion, keyHealth, keyBoot, keyTime} {
		if attributes[k] == "" {
			return Report{}, fmt.Errorf("%w: it has no %s", ErrTorn, k)
		}
	}
	if s, ok := attributes[keySum]; ok && s != sum(attributes) {
		return Report{}, fmt.Errorf("%w: its sum is %s, not %q", ErrTorn, sum(attributes), clip(s))
	}
	r := Report{
		Version: attributes[keyVersion], Health: Health(attributes[keyHealth]), Error: oneLine(value(attributes[keyError]), MaxError),
		Current: value(attributes[keyCurrent]), BootID: attributes[keyBoot],
	}
	for _, k := range []string{keyVersion, keyCurrent, keyBoot} {
		if err := checkText(attributes[k]); err != nil {
			return Report{}, fmt.Errorf("%w: %s: %w", ErrMalformed, k, err)
		}
	}
	switch r.Health {
	case OK:
		r.Current = r.Version
	case Pending, Failed:
	default:
		return Report{}, fmt.Errorf("%w: health is %q, not %s, %s or %s", ErrMalformed, clip(string(r.Health)), OK, Pending, Failed)
	}
	t, err := time.Parse(time.RFC3339, attributes[keyTime])
	if err != nil {
		return Report{}, fmt.Errorf("%w: time is %q, not one of RFC 3339", ErrMalformed, clip(attributes[keyTime]))
	}
	r.Time = t.UTC()
	return r, nil
}

// value is what an attribute says.
func value(s string) string {
	if s == nothing {
		return ""
	}
	return s
}

// checkText refuses what no version or boot ID is.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("over %d bytes long", maxText)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q is not printable", s)
	}
	return nil
}

// oneLine makes text printable on one line, of at most most bytes.
func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= most {
		return s
	}
	const dots = "…"
	end := most - len(dots)
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + dots
}

func clip(s string) string { return oneLine(s, 60) }
