package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// Share is a number of things or a part of them: "5", "20%", "0.5%". The zero
// value is no share at all.
type Share struct {
	count   int
	percent int // hundredths of a percent
	isPart  bool
}

// Count is a share of n things, however many there are.
func Count(n int) Share { return Share{count: n} }

// Percent is a share of so many in a hundred.
func Percent(p int) Share { return Share{percent: p * 100, isPart: true} }

// maxCount bounds the numbers in a fleet.yaml.
const maxCount = 1_000_000

// ParseShare reads a whole number up to 1,000,000, or a percentage between 0
// and 100 with at most two digits after the point.
func ParseShare(s string) (Share, error) {
	digits, isPart := strings.CutSuffix(s, "%")
	if !isPart {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || n > maxCount || !plainDigits(s) {
			return Share{}, fmt.Errorf("%q is neither a number up to %d nor a percentage as in 20%%", s, maxCount)
		}
		return Count(int(n)), nil
	}
	whole, fraction, _ := strings.Cut(strings.TrimSpace(digits), ".")
	if len(fraction) > 2 || !plainDigits(whole) || strings.Contains(digits, ".") && !plainDigits(fraction) {
		return Share{}, fmt.Errorf("%q is not a percentage as in 20%% or 0.5%%", s)
	}
	n, err := strconv.ParseUint(whole+(fraction + "00")[:2], 10, 31)
	if err != nil || n > 100_00 {
		return Share{}, fmt.Errorf("%q is not between 0%% and 100%%", s)
	}
	return Share{percent: int(n), isPart: true}, nil
}

func plainDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == "" && len(s) < 10
}

// Of is how many of n things the share is, rounded down, never more than n nor
// less than 0. Where at least one is meant, the caller takes care of it.
func (s Share) Of(n int) int {
	if n <= 0 {
		return 0
	}
	if s.isPart {
		return int(int64(n) * int64(s.percent) / 100_00)
	}
	return max(0, min(s.count, n))
}

// under reports whether the share is of fewer things than another, however many
// there are: a number and a part cannot be compared.
func (s Share) under(o Share) bool {
	return s.isPart == o.isPart && !s.IsZero() && (s.count < o.count || s.percent < o.percent)
}

// IsZero reports whether the share is of nothing, whatever there is.
func (s Share) IsZero() bool { return s.count <= 0 && s.percent <= 0 }

// String writes the share as [ParseShare] reads it.
func (s Share) String() string {
	if !s.isPart {
		return strconv.Itoa(s.count)
	}
	whole, fraction := s.percent/100, s.percent%100
	if fraction == 0 {
		return strconv.Itoa(whole) + "%"
	}
	return strings.TrimRight(fmt.Sprintf("%d.%02d", whole, fraction), "0") + "%"
}

// MarshalText writes the share as [ParseShare] reads it.
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what [ParseShare] takes.
func (s *Share) UnmarshalText(text []byte) error {
	parsed, err := ParseShare(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}
