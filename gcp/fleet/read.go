package fleet

import (
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// How much a fleet.yaml may hold.
const (
	maxTargets = 1000
	maxZones   = 1000 // of one target
	maxWaves   = 100
	maxLabels  = 32
	maxProtect = 1000
	maxHosts   = 10_000 // hosts per disk
)

// defaults is what an empty file would mean.
func defaults() *Config {
	return &Config{
		Publish: Publish{MutationsPerSecond: 10, Parallel: 64},
		Builder: Builder{DiskType: "pd-ssd"},
		Rollout: Rollout{
			Waves: []Wave{
				{Name: "canary", Hosts: Percent(1), Min: 1, Bake: 30 * time.Minute},
				{Name: "wave-2", Hosts: Percent(10), Min: 1, Bake: 15 * time.Minute},
				{Name: "wave-3", Hosts: Percent(100), Min: 1},
			},
			MaxConcurrent: 50,
			MaxPerZone:    Percent(20),
			HealthTimeout: 5 * time.Minute,
			MaxFailures:   Percent(2),
			OnFailure:     OnFailurePause,
			KeepPrevious:  true,
		},
		Retention: Retention{KeepVersions: 3, MinAge: 14 * 24 * time.Hour},
	}
}

// config reads the whole file into c, which has the defaults.
func (r *reader) config(n node, c *Config) {
	var targets, rollout node
	seen := r.mapping(n,
		key{"service", func(n node) { c.Service = r.checked(n, checkService) }},
		key{"bucket", func(n node) { c.Bucket = r.checked(n, checkBucket) }},
		key{"targets", func(n node) { targets = n; c.Targets = r.targets(n) }},
		key{"labels", func(n node) { c.Labels = r.labels(n) }},
		key{"state", func(n node) { c.State = r.checked(n, checkState) }},
		key{"computeEndpoint", func(n node) { c.ComputeEndpoint = r.checked(n, checkEndpoint) }},
		key{"publish", func(n node) { r.publish(n, &c.Publish) }},
		key{"builder", func(n node) { r.builder(n, &c.Builder) }},
		key{"hosts", func(n node) { r.hosts(n, &c.Hosts) }},
		key{"rollout", func(n node) { rollout = n; r.rollout(n, &c.Rollout) }},
		key{"retention", func(n node) { r.retention(n, &c.Retention) }},
	)
	r.require(n, seen, "service", "bucket", "targets")
	r.uniqueZones(targets, c.Targets)
	if seen["rollout"] && !seen["hosts"] {
		r.fail(rollout, "hosts.filter is missing: it says which instances a rollout is for, as labels.role=repl-host AND status=RUNNING")
	}
	if seen["rollout"] && c.Rollout.HealthTimeout < leastTimeout && !strings.HasPrefix(c.ComputeEndpoint, "http://") {
		r.fail(r.child(rollout, "healthTimeout"), "%s is too short for a host to check a disk and for its report to be read: %s is the least", c.Rollout.HealthTimeout, leastTimeout)
	}
	if c.State == "" {
		c.State = "gs://" + c.Bucket + "/state"
	}
}

// leastTimeout is the shortest healthTimeout: a report is read every 10 seconds.
// With an emulator a second will do.
const leastTimeout = 30 * time.Second

func (r *reader) hosts(n node, h *Hosts) {
	seen := r.mapping(n, key{"filter", func(n node) { h.Filter = r.checked(n, checkFilter) }})
	r.require(n, seen, "filter")
}

// child is the value of a mapping's key, or the mapping where there is none.
func (r *reader) child(n node, name string) node {
	pairs, _ := pairsOf(n.Node)
	for _, p := range pairs {
		if key, child, ok := r.pair(n, p); ok && key == name {
			return child
		}
	}
	return n
}

// require complains of keys that are not there.
func (r *reader) require(n node, seen map[string]bool, keys ...string) {
	for _, k := range keys {
		if !seen[k] {
			r.fail(n, "%s is missing", k)
		}
	}
}

// checked reads a text that check has nothing to say about.
func (r *reader) checked(n node, check func(string) error) string {
	failed := len(r.errs)
	s := r.text(n)
	if len(r.errs) > failed {
		return s
	}
	if err := check(s); err != nil {
		r.fail(n, "%w", err)
	}
	return s
}

func (r *reader) targets(n node) []Target {
	var targets []Target
	r.list(n, maxTargets, func(n node) { targets = append(targets, r.target(n)) })
	if seq, ok := n.Node.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
		r.fail(n, "there has to be one at least")
	}
	return targets
}

func (r *reader) target(n node) Target {
	var t Target
	var zones node
	seen := r.mapping(n,
		key{"project", func(n node) { t.Project = r.checked(n, checkProject) }},
		key{"storageLocation", func(n node) { t.StorageLocation = r.checked(n, checkLocation) }},
		key{"diskType", func(n node) { t.DiskType = r.checked(n, checkDiskType) }},
		key{"hostsPerDisk", func(n node) { t.HostsPerDisk = r.integer(n, 1, maxHosts) }},
		key{"zones", func(n node) { zones = n }},
	)
	r.require(n, seen, "project", "storageLocation", "zones")
	if t.HostsPerDisk == 0 {
		t.HostsPerDisk = defaultHosts(t.DiskType)
	}
	if zones.Node != nil {
		t.Zones = r.zones(zones, t)
	}
	return t
}

func defaultHosts(diskType string) int {
	t, _ := DiskTypeNamed(diskType)
	return t.HostsPerDisk
}

func (r *reader) zones(n node, t Target) []Zone {
	var zones []Zone
	r.list(n, maxZones, func(n node) { zones = append(zones, r.zone(n, t)) })
	if seq, ok := n.Node.(*ast.SequenceNode); ok && len(seq.Values) == 0 {
		r.fail(n, "there has to be one at least")
	}
	return zones
}

// zone reads a zone's name alone, or a mapping.
func (r *reader) zone(n node, t Target) Zone {
	z := Zone{Copies: 1}
	if _, isText := n.Node.(*ast.StringNode); isText {
		z.Name = r.checked(n, checkZone)
	} else {
		seen := r.mapping(n,
			key{"name", func(n node) { z.Name = r.checked(n, checkZone) }},
			key{"diskType", func(n node) { z.DiskType = r.checked(n, checkDiskType) }},
			key{"hostsPerDisk", func(n node) { z.HostsPerDisk = r.integer(n, 1, maxHosts) }},
			key{"copies", func(n node) { z.Copies = r.integer(n, 0, MaxCopies) }},
		)
		r.require(n, seen, "name")
	}
	if z.DiskType == "" {
		z.DiskType = t.DiskType
	}
	switch {
	case z.DiskType == "":
		r.fail(n, "diskType is missing, here and in the target: it is one of %s", diskTypeNames())
	case z.HostsPerDisk == 0 && z.DiskType == t.DiskType:
		z.HostsPerDisk = t.HostsPerDisk
	case z.HostsPerDisk == 0:
		z.HostsPerDisk = defaultHosts(z.DiskType)
	}
	return z
}

// uniqueZones refuses a zone that comes twice in a project: its disks would
// have the same names.
func (r *reader) uniqueZones(n node, targets []Target) {
	type place struct{ project, zone string }
	first := make(map[place]int)
	for i, t := range targets {
		for _, z := range t.Zones {
			at := place{t.Project, z.Name}
			if j, twice := first[at]; twice && z.Name != "" {
				r.fail(r.item(n, i), "zone %s of project %s comes twice, first in targets[%d]", z.Name, t.Project, j)
				continue
			}
			first[at] = i
		}
	}
}

// item is the i-th node of a list.
func (r *reader) item(n node, i int) node {
	child := node{Node: n.Node, key: n.key + "[" + strconv.Itoa(i) + "]", line: n.line}
	if seq, ok := n.Node.(*ast.SequenceNode); ok && i < len(seq.Values) {
		child.line = lineOf(seq.Values[i], n.line)
	}
	return child
}

func (r *reader) labels(n node) map[string]string {
	labels, nodes := r.textMap(n)
	if len(labels) > maxLabels {
		r.fail(n, "%d labels, and %d are the most", len(labels), maxLabels)
	}
	for name, value := range labels {
		if err := checkLabel(name, value); err != nil {
			r.fail(nodes[name], "%w", err)
		}
	}
	return labels
}

func (r *reader) publish(n node, p *Publish) {
	r.mapping(n,
		key{"mutationsPerSecond", func(n node) { p.MutationsPerSecond = r.number(n, 100) }},
		key{"parallel", func(n node) { p.Parallel = r.integer(n, 1, 1000) }},
	)
}

func (r *reader) builder(n node, b *Builder) {
	r.mapping(n,
		key{"project", func(n node) { b.Project = r.checked(n, checkProject) }},
		key{"zone", func(n node) { b.Zone = r.checked(n, checkZone) }},
		key{"instance", func(n node) { b.Instance = r.checked(n, checkName) }},
		key{"diskType", func(n node) { b.DiskType = r.checked(n, checkWritable) }},
	)
}

func (r *reader) rollout(n node, o *Rollout) {
	r.mapping(n,
		key{"waves", func(n node) { o.Waves = r.waves(n) }},
		key{"maxConcurrent", func(n node) { o.MaxConcurrent = r.integer(n, 1, maxCount) }},
		key{"maxPerZone", func(n node) { o.MaxPerZone = r.someShare(n) }},
		key{"healthTimeout", func(n node) { o.HealthTimeout = r.someTime(n) }},
		key{"maxFailures", func(n node) { o.MaxFailures = r.share(n) }},
		key{"onFailure", func(n node) { o.OnFailure = r.checked(n, checkOnFailure) }},
		key{"keepPrevious", func(n node) { o.KeepPrevious = r.truth(n) }},
	)
}

func (r *reader) waves(n node) []Wave {
	var waves []Wave
	names := make(map[string]bool)
	var before Wave
	r.list(n, maxWaves, func(n node) {
		w := Wave{Name: "wave-" + strconv.Itoa(len(waves)+1), Min: 1}
		seen := r.mapping(n,
			key{"name", func(n node) { w.Name = r.checked(n, checkName) }},
			key{"hosts", func(n node) { w.Hosts = r.someShare(n) }},
			key{"min", func(n node) { w.Min = r.integer(n, 1, maxCount) }},
			key{"bake", func(n node) { w.Bake = r.duration(n) }},
		)
		r.require(n, seen, "hosts")
		if names[w.Name] {
			r.fail(n, "another wave is called %s", w.Name)
		}
		if w.Hosts.under(before.Hosts) {
			r.fail(n, "hosts: %s are fewer than the %s of wave %s: waves include those before them", w.Hosts, before.Hosts, before.Name)
		}
		names[w.Name], before = true, w
		waves = append(waves, w)
	})
	if last := len(waves) - 1; last < 0 || waves[last].Hosts != Percent(100) {
		r.fail(n, "the last wave has to be of 100%% of the hosts")
	}
	return waves
}

// someShare reads a share that is not of nothing.
func (r *reader) someShare(n node) Share {
	failed := len(r.errs)
	s := r.share(n)
	if len(r.errs) == failed && s.IsZero() {
		r.fail(n, "more than none are wanted")
	}
	return s
}

// someTime reads a length of time of a second at least.
func (r *reader) someTime(n node) time.Duration {
	failed := len(r.errs)
	d := r.duration(n)
	if len(r.errs) == failed && d < time.Second {
		r.fail(n, "a second is the least")
	}
	return d
}

func (r *reader) retention(n node, o *Retention) {
	r.mapping(n,
		key{"keepVersions", func(n node) { o.KeepVersions = r.integer(n, 1, maxCount) }},
		key{"minAge", func(n node) { o.MinAge = r.duration(n) }},
		key{"protect", func(n node) {
			o.Protect = nil
			r.list(n, maxProtect, func(n node) { o.Protect = append(o.Protect, r.checked(n, checkPattern)) })
		}},
	)
}

func checkPattern(s string) error {
	_, err := path.Match(s, "")
	return err
}
