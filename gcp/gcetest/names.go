package gcetest

import (
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// linkBase begins the selfLink of every resource.
const linkBase = "https://www.googleapis.com/compute/v1/"

var (
	namePattern    = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$`)
	projectPattern = regexp.MustCompile(`^([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]$`)
	uuidPattern    = regexp.MustCompile(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)
)

const nameRule = "Must be a match of regex '(?:[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?)'"

// checkName refuses what is not a resource name.
func checkName(field, name string) error {
	if name == "" {
		return errRequired(field)
	}
	if !namePattern.MatchString(name) {
		return errInvalid(field, name, nameRule)
	}
	return nil
}

// checkRequestID refuses what is neither empty nor a UUID other than zero.
func checkRequestID(id string) error {
	if id == "" {
		return nil
	}
	if !uuidPattern.MatchString(id) || strings.Trim(id, "0-") == "" {
		return errInvalid("requestId", id, "Must be a valid UUID that is not zero")
	}
	return nil
}

// checkLabels applies the rules on labels: at most 64, a key of 1 to 63
// characters that starts with a letter, a value of at most 63, lower case.
func checkLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return errInvalid("resource.labels", len(labels), "At most 64 labels are allowed")
	}
	for _, k := range slices.Sorted(mapKeys(labels)) {
		v := labels[k]
		first, _ := utf8.DecodeRuneInString(k)
		if k == "" || !unicode.IsLetter(first) || !labelText(k) {
			return errInvalid("resource.labels", k, "Label key '%s' violates format constraints. The key must start "+
				"with a lowercase letter and can only contain lowercase letters, numeric characters, underscores and dashes. "+
				"The key can be at most 63 characters long", k)
		}
		if !labelText(v) {
			return errInvalid("resource.labels", k, "Label value '%s' violates format constraints. The value can only "+
				"contain lowercase letters, numeric characters, underscores and dashes. The value can be at most 63 characters long", v)
		}
	}
	return nil
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func labelText(s string) bool {
	if utf8.RuneCountInString(s) > 63 || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r != '_' && r != '-' && !unicode.IsDigit(r) && (!unicode.IsLetter(r) || unicode.IsUpper(r)) {
			return false
		}
	}
	return true
}

// fingerprint changes with the labels.
func fingerprint(labels map[string]string) string {
	h := sha256.New()
	for _, k := range slices.Sorted(mapKeys(labels)) {
		h.Write([]byte(k + "=" + labels[k] + "\n"))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:8])
}

// link is a resource that a URL names. Zone is empty for a global one.
type link struct{ project, zone, kind, name string }

// path is the part of the URL that error messages show.
func (l link) path() string {
	if l.zone == "" {
		return "projects/" + l.project + "/global/" + l.kind + "/" + l.name
	}
	return "projects/" + l.project + "/zones/" + l.zone + "/" + l.kind + "/" + l.name
}

func (l link) url() string { return linkBase + l.path() }

// parseLink reads a full URL, projects/P/…, global/KIND/NAME or
// zones/Z/KIND/NAME; the shorter forms are of the project given. The kind of an
// image family is images/family.
func parseLink(raw, project string) (link, bool) {
	rest := raw
	for _, base := range []string{linkBase, "https://compute.googleapis.com/compute/v1/"} {
		rest = strings.TrimPrefix(rest, base)
	}
	parts := strings.Split(rest, "/")
	if slices.Contains(parts, "") {
		return link{}, false
	}
	l := link{project: project}
	if parts[0] == "projects" && len(parts) > 2 {
		l.project, parts = parts[1], parts[2:]
	}
	switch {
	case parts[0] == "global" && len(parts) == 3:
		l.kind, l.name = parts[1], parts[2]
	case parts[0] == "global" && len(parts) == 4 && parts[1] == "images" && parts[2] == "family":
		l.kind, l.name = "images/family", parts[3]
	case parts[0] == "zones" && len(parts) == 4:
		l.zone, l.kind, l.name = parts[1], parts[2], parts[3]
	default:
		return link{}, false
	}
	return l, projectPattern.MatchString(l.project)
}

// parseKind is parseLink for a field that must name resources of one kind.
func parseKind(field, raw, project, kind string) (link, error) {
	l, ok := parseLink(raw, project)
	if !ok || l.kind != kind && !(kind == "images" && l.kind == "images/family") {
		return link{}, errInvalid(field, raw, "The URL is malformed.")
	}
	return l, nil
}
