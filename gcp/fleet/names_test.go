package fleet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	long := strings.Repeat("v", 70)
	for _, test := range []struct{ got, want string }{
		{ImageName("nixmodules", "v12", "us"), "nixmodules-v12-us"},
		{DiskName("nixmodules", "v12-20260101-abc", "us-central1-a", 1), "nixmodules-v12-20260101-abc-us-central1-a-1"},
		{DiskName("nixmodules", "v12-20260101-ABC", "us-central1-a", 1), "nixmodules-v12-20260101-abc-us-central1-a-1-x7d0961d7d9"},
		{BuildDiskName("s", "1"), "s-1-build"},
		{SnapshotName("s", "1"), "s-1-snapshot"},
		{DeviceName("s", "1"), "s-1"},
		{ObjectName("s", "v1"), "s/v1/disk.raw.tar.gz"},
		{ManifestName("s", "v1"), "s/v1/manifest.json"},
		{RawName("s", "v1", ".sqsh"), "s/v1/disk.sqsh"},
		{LabelValue("v12_a-b"), "v12_a-b"},
		{SHALabel(strings.Repeat("a", 64)), strings.Repeat("a", 32)},
		{SHALabel("abc"), "abc"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	for _, v := range []string{long, "v1/../..", "V1", "v1.2", "é", "-", "v-", ".."} {
		for _, name := range []string{ImageName("s", v, "us"), DeviceName("s", v), LabelValue(v), ObjectPrefix("s", v)} {
			if v != "v-" && v != "-" && !digestSuffix.MatchString(strings.TrimPrefix(strings.TrimSuffix(name, "/"), "s/")) {
				t.Errorf("%q becomes %q, without a digest", v, name)
			}
		}
	}
}

// names makes every kind of name of a version.
func names(version string) map[string]string {
	return map[string]string{
		"image": ImageName("svc", version, "us-central1"), "disk": DiskName("svc", version, "us-central1-a", 12),
		"build": BuildDiskName("svc", version), "snapshot": SnapshotName("svc", version),
		"device": DeviceName("svc", version),
	}
}

// checkNames holds the names of a version against Google's rules.
func checkNames(t *testing.T, version string) {
	t.Helper()
	for kind, name := range names(version) {
		if checkName(name) != nil {
			t.Errorf("%s of %q is %q", kind, version, name)
		}
	}
	if v := LabelValue(version); !labelText(v) || len(v) > maxLabel {
		t.Errorf("the label of %q is %q", version, v)
	}
	if again := LabelValue(LabelValue(version)); !labelText(again) {
		t.Errorf("the label of the label of %q is %q", version, again)
	}
	if key := strings.TrimPrefix(DeviceName("svc", version), "svc-"); ManifestName("svc", key) != ManifestName("svc", version) || DeviceName("svc", key) != DeviceName("svc", version) {
		t.Errorf("a host with %q has its manifest at %q, and it is at %q", key, ManifestName("svc", key), ManifestName("svc", version))
	}
	object := ObjectName("svc", version)
	if strings.Count(object, "/") != 2 || strings.Contains(object, "/../") || strings.Contains(object, "//") {
		t.Errorf("the object of %q is %q", version, object)
	}
}

// TestNamesDiffer: versions that differ in anything have names that differ,
// also those that are made to look like another's shortened name.
func TestNamesDiffer(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"v1", "V1", "-", "_", ".", "us-central1-a", "1", "x", "é", strings.Repeat("a", 40), "-x0123456789"}
	seen := make(map[string]string)
	for range 5000 {
		var version string
		for range 1 + r.IntN(4) {
			version += pieces[r.IntN(len(pieces))]
		}
		versions := []string{version, strings.TrimPrefix(DeviceName("svc", version), "svc-"), LabelValue(version)}
		for _, v := range versions {
			checkNames(t, v)
			if CheckVersion(v) != nil {
				continue
			}
			for kind, name := range names(v) {
				key := kind + " " + name
				if other, taken := seen[key]; taken && other != v {
					t.Fatalf("%s of %q and of %q are both %q", kind, other, v, name)
				}
				seen[key] = v
			}
		}
	}
}

// TestDisksDiffer: so do zones and copies.
func TestDisksDiffer(t *testing.T) {
	seen := make(map[string]bool)
	for _, version := range []string{"v1", "v1-us", strings.Repeat("v", 60), "V"} {
		for _, zone := range []string{"us-central1-a", "us-central1-b", "northamerica-northeast1-a"} {
			for copy := 1; copy <= MaxCopies; copy++ {
				name := DiskName("nixmodules", version, zone, copy)
				if seen[name] || checkName(name) != nil {
					t.Fatalf("%s: taken or wrong", name)
				}
				seen[name] = true
			}
		}
	}
}

func TestCheckVersion(t *testing.T) {
	for version, ok := range map[string]bool{
		"v12-20260101-ABC": true, "1": true, "é": true, strings.Repeat("a", 200): true,
		"": false, "a b": false, "a\n": false, "a-x0123456789": false, "\xff": false, strings.Repeat("a", 201): false, "\u200b": false,
	} {
		if err := CheckVersion(version); (err == nil) != ok {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"v1", "V12-20260101-ABC", "", "----", "\xff\x00", strings.Repeat("z", 300)} {
		f.Add(s)
	}
	f.Fuzz(checkNames)
}

func FuzzParse(f *testing.F) {
	f.Add(minimal)
	f.Add(minimal + "labels: {a: b}\nrollout: {waves: [{hosts: 100%, bake: 1d}], maxFailures: 0.5%}\n")
	f.Add("service: [\n")
	f.Add("a: &x [*x]\n<<: *x\n")
	f.Add("? a\n: !!binary b\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse([]byte(text))
		if err != nil {
			return
		}
		for _, target := range c.Targets {
			for _, z := range target.Zones {
				if z.HostsPerDisk < 1 || z.DiskType == "" || checkZone(z.Name) != nil || checkProject(target.Project) != nil {
					t.Errorf("a zone that will not do was accepted: %+v", z)
				}
			}
		}
		if len(c.Targets) == 0 || checkService(c.Service) != nil {
			t.Errorf("accepted: %+v", c)
		}
	})
}

func Example() {
	c, err := Parse([]byte(`
service: nixmodules
bucket: nixmodules-images
targets:
  - project: prod-1
    storageLocation: us
    diskType: pd-ssd
    zones: [us-central1-a, {name: us-west1-b, diskType: hyperdisk-ml, copies: 2}]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, zone := range c.Targets[0].Zones {
		for copy := range zone.Copies {
			fmt.Println(DiskName(c.Service, "v12", zone.Name, copy+1), zone.DiskType, zone.HostsPerDisk)
		}
	}
	// Output:
	// nixmodules-v12-us-central1-a-1 pd-ssd 100
	// nixmodules-v12-us-west1-b-1 hyperdisk-ml 2500
	// nixmodules-v12-us-west1-b-2 hyperdisk-ml 2500
}

// TestSecondDevice has a host find a version's objects by either of the names
// that its disk may have, and take no version for a second device of another.
func TestSecondDevice(t *testing.T) {
	for _, version := range []string{"v1", "20260203-abc1234", "v1-xyz", strings.Repeat("a", 30)} {
		name, ok := SecondDeviceName("nix", version)
		said := strings.TrimPrefix(name, "nix-")
		if !ok || name == DeviceName("nix", version) || CheckVersion(said) == nil {
			t.Errorf("%s: %s, %v: it may be a version's of its own", version, name, ok)
		}
		if got := PlainVersion("nix", said); got != version || ObjectPrefix("nix", said) != ObjectPrefix("nix", version) {
			t.Errorf("a host that runs %s is taken to run %s; its objects are at %s", said, got, ObjectPrefix("nix", said))
		}
		if got := PlainVersion("nix", version); got != version {
			t.Errorf("%s is taken for %s", version, got)
		}
		if got := PlainVersion("other", said); got != said {
			t.Errorf("%s of another service is taken for %s", said, got)
		}
	}
	long := DeviceName("nix", "V 1/2 "+strings.Repeat("long", 20))
	if _, ok := SecondDeviceName("nix", "V 1/2 "+strings.Repeat("long", 20)); ok || PlainVersion("nix", long[4:]) != long[4:] {
		t.Errorf("%s has room for more", long)
	}
}
