package fleet

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// The labels that everything of ours has. Names are shortened, so that labels
// and not names tell what a resource is.
const (
	LabelService = "service" // [Config.Service]
	LabelVersion = "version" // [LabelValue] of the version
	LabelCopy    = "copy"    // disks only: the number of the copy, from 1
	LabelSHA     = "sha"     // [SHALabel] of the image's SHA-256
)

// The lengths that Compute Engine allows.
const (
	maxName  = 63 // resource names, RFC 1035
	maxLabel = 63 // values of labels
)

// MaxCopies is how many disks of a version there can be in a zone.
const MaxCopies = 999

// ImageName is the name of the Compute Engine image of a version in a storage
// location.
func ImageName(service, version, location string) string {
	return resourceName(service, version, location)
}

// DiskName is the name of a disk: copies are numbered from 1 to [MaxCopies].
func DiskName(service, version, zone string, copy int) string {
	return resourceName(service, version, zone, strconv.Itoa(copy))
}

// BuildDiskName is the name of the disk that an instance writes a version to,
// before it is made into a snapshot.
func BuildDiskName(service, version string) string {
	return resourceName(service, version, "build")
}

// SnapshotName is the name of the snapshot of a version.
func SnapshotName(service, version string) string {
	return resourceName(service, version, "snapshot")
}

// DeviceName is what a version's disk is attached as: the guest sees it as
// /dev/disk/by-id/google-NAME.
func DeviceName(service, version string) string {
	return resourceName(service, version)
}

// SecondDeviceName is what another disk of a version is attached as where a host
// has one already, below another version's: hosts take what was attached last.
// ok is false if [DeviceName] leaves no room for what is behind it.
func SecondDeviceName(service, version string) (name string, ok bool) {
	first := DeviceName(service, version)
	name = first + secondSuffix(first)
	return name, len(name) <= maxName
}

// secondSuffix is the end of a second device's name. No version that
// [CheckVersion] accepts ends like it.
func secondSuffix(first string) string {
	sum := sha256.Sum256([]byte("second\x00" + first))
	return "-x" + hex.EncodeToString(sum[:5])
}

// PlainVersion is the version that a host means which knows it by the name of its
// device: what follows the service in [DeviceName] or [SecondDeviceName]. Anything
// else is returned as it is.
func PlainVersion(service, version string) string {
	at := digestSuffix.FindStringIndex(version)
	if at == nil || at[0] == 0 || secondSuffix(service+"-"+version[:at[0]]) != version[at[0]:] {
		return version
	}
	return version[:at[0]]
}

// ObjectPrefix is what the names of all of a version's objects in the bucket
// begin with. It ends with a slash. What follows the service in [DeviceName] or
// [SecondDeviceName] will do for the version, so that a host finds the objects of
// a disk that it has.
func ObjectPrefix(service, version string) string {
	return service + "/" + DeviceName(service, PlainVersion(service, version))[len(service)+1:] + "/"
}

// ObjectName is the name of the object that Compute Engine imports a version
// from.
func ObjectName(service, version string) string {
	return ObjectPrefix(service, version) + "disk.raw.tar.gz"
}

// ManifestName is the name of the object that holds a version's manifest.
func ManifestName(service, version string) string {
	return ObjectPrefix(service, version) + "manifest.json"
}

// RawName is the name of the object that holds a version's image as it is:
// "disk" with the image file's suffix, as ".sqsh".
func RawName(service, version, suffix string) string {
	return ObjectPrefix(service, version) + "disk" + suffix
}

// SHALabel is the value of the label sha: the first 32 of a SHA-256's 64
// hexadecimal digits, since a label's value is too short for all of them.
func SHALabel(sha256 string) string { return sha256[:min(len(sha256), 32)] }

// LabelValue makes s fit for a label's value: it is s itself where it consists
// of at most 63 lower-case letters, digits, hyphens and underscores. Otherwise
// it is changed and ends with a digest of s, so that different texts have
// different values.
func LabelValue(s string) string {
	return fit(s, s, maxLabel, func(c byte) bool { return nameByte(c) || c == '_' })
}

// resourceName joins parts to a name that Compute Engine takes. A service that
// Parse accepts comes first, so that a letter does. Within a service, different
// versions that [CheckVersion] accepts have different names.
func resourceName(parts ...string) string {
	joined := strings.Join(parts, "-")
	name := fit(joined, strings.Join(parts, "\x00"), maxName, nameByte)
	if !strings.HasSuffix(name, "-") {
		return name
	}
	return shorten(name, strings.Join(parts, "\x00"), maxName)
}

// digestSuffix ends every name that does not say all that it was made from, and
// no version that is accepted.
var digestSuffix = regexp.MustCompile(`(^|-)x[0-9a-f]{10}$`)

// fit returns s where all of its bytes are allowed and it is short enough; else
// s with other bytes turned to lower case or hyphens, and a digest of whole at
// its end.
func fit(s, whole string, limit int, allowed func(byte) bool) string {
	var b strings.Builder
	for _, c := range []byte(strings.ToLower(s)) {
		if !allowed(c) {
			c = '-'
		}
		b.WriteByte(c)
	}
	if b.String() == s && len(s) <= limit {
		return s
	}
	return shorten(b.String(), whole, limit)
}

// shorten cuts s so that a digest of whole fits behind it.
func shorten(s, whole string, limit int) string {
	sum := sha256.Sum256([]byte(whole))
	suffix := "-x" + hex.EncodeToString(sum[:5])
	return strings.TrimRight(s[:min(len(s), limit-len(suffix))], "-") + suffix
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-'
}
