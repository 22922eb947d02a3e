// Package fleet is the configuration that says where disks go and how hosts
// move to them (fleet.yaml), and the names and labels that everything made from
// it bears. A file goes in; a checked [Config], in which every inherited and
// default value is filled in, comes out. The package talks to nobody.
package fleet

import (
	"slices"
	"strings"
	"time"
)

// Config is a fleet.yaml that was read and checked.
type Config struct {
	// Service is the value of the label "service" on everything that is ours,
	// the prefix of names and the images' family: 1 to 32 lower-case letters,
	// digits and hyphens, a letter first. Required.
	Service string `yaml:"service"`
	// Bucket is the Cloud Storage bucket that images are imported from.
	// Required.
	Bucket string `yaml:"bucket"`
	// Targets are where disks go; at least one.
	Targets []Target `yaml:"targets"`
	// Labels go onto images, disks and snapshots, beside ours. At most 32; the
	// keys service, version, copy and sha are ours.
	Labels map[string]string `yaml:"labels,omitempty"`
	// State is where the rollouts' state and locks are, as gs://BUCKET/PREFIX.
	// The default is "state" in Bucket.
	State string `yaml:"state"`
	// ComputeEndpoint is the Compute Engine API's address where it is not
	// Google's: an emulator's, as http://HOST:PORT. STORAGE_EMULATOR_HOST is
	// the same for Cloud Storage.
	ComputeEndpoint string `yaml:"computeEndpoint,omitempty"`
	// Publish bounds what "bigdisk publish" does at a time.
	Publish Publish `yaml:"publish"`
	// Builder is the instance that writes disks for "bigdisk publish --source
	// disk".
	Builder Builder `yaml:"builder"`
	// Hosts are the instances that the disks are for.
	Hosts Hosts `yaml:"hosts,omitempty"`
	// Rollout is how hosts move to a new version.
	Rollout Rollout `yaml:"rollout"`
	// Retention is what garbage collection keeps.
	Retention Retention `yaml:"retention"`
}

// Target is a project, and the zones in it that get disks made from one image.
type Target struct {
	// Project is the project's ID. Required.
	Project string `yaml:"project"`
	// StorageLocation is the region or multi-region that the image is stored
	// in, as "us" or "europe-west1". Required. Targets with the same project
	// and location share an image.
	StorageLocation string `yaml:"storageLocation"`
	// DiskType is the type of the zones' disks, where a zone has none of its
	// own; see [DiskTypes]. Empty where each zone names its own.
	DiskType string `yaml:"diskType,omitempty"`
	// HostsPerDisk is how many instances may have one disk attached. The
	// default is the disk type's.
	HostsPerDisk int `yaml:"hostsPerDisk,omitempty"`
	// Zones has the target's zones, in the file's order; at least one. No zone
	// comes twice in a project.
	Zones []Zone `yaml:"zones"`
}

// Zone is one zone's disks, with what it inherits from its target filled in.
type Zone struct {
	// Name is the zone's, as "us-central1-a".
	Name string `yaml:"name"`
	// DiskType is one of [DiskTypes].
	DiskType string `yaml:"diskType"`
	// HostsPerDisk is how many instances may have one disk attached. It is the
	// target's only where the type is the target's too.
	HostsPerDisk int `yaml:"hostsPerDisk"`
	// Copies is how many disks of a version publishing makes in the zone: 0 to
	// [MaxCopies], 1 by default. They are numbered from 1. A rollout adds what
	// its hosts need.
	Copies int `yaml:"copies"`
}

// Publish bounds what publishing does at a time, in each project.
type Publish struct {
	// MutationsPerSecond is how many changing calls a second go to one
	// project: over 0, at most 100, 10 by default. Google counts per minute
	// and project, for all users of it together.
	MutationsPerSecond float64 `yaml:"mutationsPerSecond"`
	// Parallel is how many disks of one project are being made at a time: 1 to
	// 1000, 64 by default.
	Parallel int `yaml:"parallel"`
}

// Builder is an instance. What is empty is asked of the metadata server of the
// machine that the command runs on.
type Builder struct {
	Project  string `yaml:"project,omitempty"`
	Zone     string `yaml:"zone,omitempty"`
	Instance string `yaml:"instance,omitempty"`
	// DiskType is that of the disk which is written; "pd-ssd" by default.
	DiskType string `yaml:"diskType"`
}

// Hosts are instances in the targets' projects and zones.
type Hosts struct {
	// Filter is a filter of Compute Engine's instance lists, as
	// "labels.role=repl-host AND status=RUNNING". A rollout needs one.
	Filter string `yaml:"filter"`
}

// Rollout is how hosts move to a new version.
type Rollout struct {
	// Waves are the steps, in order. The default is a canary of 1 %, at least
	// one host, that bakes for 30 minutes, then 10 % that bake for 15, then
	// all.
	Waves []Wave `yaml:"waves"`
	// MaxConcurrent is how many hosts are in change at a time, in all zones
	// together; 50 by default.
	MaxConcurrent int `yaml:"maxConcurrent"`
	// MaxPerZone is how many of a zone's hosts are in change at a time, and
	// one at least; 20 % by default.
	MaxPerZone Share `yaml:"maxPerZone"`
	// HealthTimeout is how long a host may take to report that it is healthy
	// with the new disk; 5 minutes by default.
	HealthTimeout time.Duration `yaml:"healthTimeout"`
	// MaxFailures is how many of a wave's hosts may fail, and one at least;
	// 2 % by default. More than that pause the rollout or roll it back.
	MaxFailures Share `yaml:"maxFailures"`
	// OnFailure is [OnFailurePause], the default, or [OnFailureRollback].
	OnFailure string `yaml:"onFailure"`
	// KeepPrevious keeps the disk that a host runs from attached until the host's
	// next rollout, whichever way it goes: programs may have files open on it.
	// True by default.
	KeepPrevious bool `yaml:"keepPrevious"`
}

// The values of [Rollout.OnFailure].
const (
	OnFailurePause    = "pause"
	OnFailureRollback = "rollback"
)

// Wave is a step of a rollout.
type Wave struct {
	// Name is the wave's; "wave-N" by default, N counting from 1.
	Name string `yaml:"name"`
	// Hosts is how many of all hosts have the new version when the wave is
	// done: waves include those before them.
	Hosts Share `yaml:"hosts"`
	// Min is the least number of hosts, where Hosts comes to fewer; 1 by
	// default.
	Min int `yaml:"min"`
	// Bake is how long hosts are watched after the wave's last host is
	// healthy; none by default.
	Bake time.Duration `yaml:"bake"`
}

// Retention is what garbage collection keeps.
type Retention struct {
	// KeepVersions is how many of the newest versions stay; 3 by default.
	KeepVersions int `yaml:"keepVersions"`
	// MinAge is how old a version has to be before it goes; 14 days by
	// default.
	MinAge time.Duration `yaml:"minAge"`
	// Protect are patterns, as of [path.Match], of versions that stay.
	Protect []string `yaml:"protect,omitempty"`
}

// StateLocation splits [Config.State] into the bucket and the prefix in it,
// which has no slash at either end and may be empty.
func (c *Config) StateLocation() (bucket, prefix string) {
	bucket, prefix, _ = strings.Cut(strings.TrimPrefix(c.State, "gs://"), "/")
	return bucket, strings.Trim(prefix, "/")
}

// Projects has every project once, in the file's order.
func (c *Config) Projects() []string {
	var projects []string
	for _, t := range c.Targets {
		if !slices.Contains(projects, t.Project) {
			projects = append(projects, t.Project)
		}
	}
	return projects
}

// Zone finds a project's zone and the target it belongs to.
func (c *Config) Zone(project, name string) (Target, Zone, bool) {
	for _, t := range c.Targets {
		for _, z := range t.Zones {
			if t.Project == project && z.Name == name {
				return t, z, true
			}
		}
	}
	return Target{}, Zone{}, false
}
