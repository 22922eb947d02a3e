package fleet

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxService leaves room for a version and a zone in names of 63 characters.
const maxService = 32

// maxVersion bounds what is turned into names and labels.
const maxVersion = 200

var (
	nameRule     = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	bucketRule   = regexp.MustCompile(`^[a-z0-9][-._a-z0-9]{1,220}[a-z0-9]$`)
	projectRule  = regexp.MustCompile(`^([a-z0-9][-.a-z0-9]{0,60}:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$`)
	zoneRule     = regexp.MustCompile(`^[a-z]+-[a-z]+[0-9]+-[a-z]+[0-9]*[a-z]?$`)
	locationRule = regexp.MustCompile(`^[a-z]+[0-9]*(-[a-z]+[0-9]+)?$`)
)

func checkService(s string) error {
	if len(s) > maxService || !nameRule.MatchString(s) {
		return fmt.Errorf("%q is not 1 to %d lower-case letters, digits and hyphens that begin with a letter and end with no hyphen", clip(s), maxService)
	}
	return nil
}

// checkName is Compute Engine's rule for names.
func checkName(s string) error {
	if !nameRule.MatchString(s) {
		return fmt.Errorf("%q is not 1 to %d lower-case letters, digits and hyphens that begin with a letter and end with no hyphen", clip(s), maxName)
	}
	return nil
}

func checkBucket(s string) error {
	if !bucketRule.MatchString(s) || strings.Contains(s, "..") {
		return fmt.Errorf("%q is not the name of a bucket: write it without gs:// and without a path", clip(s))
	}
	return nil
}

func checkProject(s string) error {
	if !projectRule.MatchString(s) {
		return fmt.Errorf("%q is not a project ID (6 to 30 lower-case letters, digits and hyphens)", clip(s))
	}
	return nil
}

func checkZone(s string) error {
	if !zoneRule.MatchString(s) || len(s) > 40 {
		return fmt.Errorf("%q is not a zone, as us-central1-a is one", clip(s))
	}
	return nil
}

func checkLocation(s string) error {
	if !locationRule.MatchString(s) || len(s) > 40 {
		return fmt.Errorf("%q is neither a region nor a multi-region, as us-central1 and us are", clip(s))
	}
	return nil
}

func checkDiskType(s string) error {
	if _, ok := DiskTypeNamed(s); !ok {
		return fmt.Errorf("disks of type %q cannot be attached to many instances for reading: use one of %s", clip(s), diskTypeNames())
	}
	return nil
}

// checkWritable takes any type of disk: the builder alone attaches it.
func checkWritable(s string) error {
	if !nameRule.MatchString(s) {
		return fmt.Errorf("%q is not the name of a type of disk, as pd-ssd is one", clip(s))
	}
	return nil
}

func checkState(s string) error {
	rest, ok := strings.CutPrefix(s, "gs://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	if !ok || !bucketRule.MatchString(bucket) {
		return fmt.Errorf("%q is not of the form gs://BUCKET/PREFIX", clip(s))
	}
	if strings.Contains(prefix, "//") || strings.ContainsFunc(prefix, unicode.IsControl) || !utf8.ValidString(prefix) || len(prefix) > 200 {
		return fmt.Errorf("the prefix %q will not do for names of objects", clip(prefix))
	}
	return nil
}

func checkEndpoint(s string) error {
	if s == "" {
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%q is not an address, as http://localhost:8080 is one", clip(s))
	}
	return nil
}

// checkFilter refuses filters that select everything, and those that Compute
// Engine could not read: a quote or a parenthesis without its other half.
func checkFilter(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("an empty filter selects every instance: say which are the hosts, as labels.role=repl-host AND status=RUNNING")
	}
	open, quote, begins := 0, rune(0), true
	escaped := false
	for _, c := range s {
		switch {
		case escaped:
			escaped = false
		case quote != 0 && c == '\\':
			escaped = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
		case c == '"' || c == '\'' && begins:
			quote = c
		case c == '(':
			open++
		case c == ')':
			if open--; open < 0 {
				return fmt.Errorf("%q closes a parenthesis that is not open", clip(s))
			}
		}
		begins = strings.ContainsRune(" (=:<>", c)
	}
	switch {
	case quote != 0:
		return fmt.Errorf("%q has a quotation mark %c without its other half", clip(s), quote)
	case open > 0:
		return fmt.Errorf("%q leaves %d parentheses open", clip(s), open)
	}
	return nil
}

func checkOnFailure(s string) error {
	if s != OnFailurePause && s != OnFailureRollback {
		return fmt.Errorf("%q is neither %s nor %s", clip(s), OnFailurePause, OnFailureRollback)
	}
	return nil
}

// checkLabel is Google's rule for labels: at most 63 characters, letters that
// have no upper case among them, digits, hyphens and underscores; a key begins
// with a letter.
func checkLabel(name, value string) error {
	if slices.Contains([]string{LabelService, LabelVersion, LabelCopy, LabelSHA}, name) {
		return errors.New("this label is set by bigdisk itself")
	}
	first, _ := utf8.DecodeRuneInString(name)
	if !unicode.IsLetter(first) || !labelText(name) {
		return errors.New("a label's key is 1 to 63 lower-case letters, digits, hyphens and underscores, a letter first")
	}
	if !labelText(value) {
		return fmt.Errorf("a label's value is up to 63 lower-case letters, digits, hyphens and underscores, and %q is not", clip(value))
	}
	return nil
}

func labelText(s string) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxLabel && !strings.ContainsFunc(s, func(c rune) bool {
		letter := unicode.IsLetter(c) && !unicode.IsUpper(c) && !unicode.IsTitle(c)
		return !letter && !unicode.IsDigit(c) && c != '-' && c != '_'
	})
}

// CheckVersion says what is wrong with a version that somebody chose: it is 1
// to 200 printable characters without spaces, and does not end like a name that
// was shortened. Names and labels are made from it by [DiskName], [LabelValue]
// and their like.
func CheckVersion(s string) error {
	bad := func(c rune) bool { return !unicode.IsGraphic(c) || unicode.IsSpace(c) }
	if s == "" || len(s) > maxVersion || !utf8.ValidString(s) || strings.ContainsFunc(s, bad) {
		return fmt.Errorf("the version %q is not 1 to %d printable characters without spaces", clip(s), maxVersion)
	}
	if digestSuffix.MatchString(s) {
		return fmt.Errorf("the version %q ends like a shortened name, with -x and 10 hexadecimal digits", clip(s))
	}
	return nil
}
