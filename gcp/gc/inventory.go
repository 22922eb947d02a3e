// Package gc finds versions that nothing uses any more, and deletes their disks,
// snapshots, images and objects.
//
// An [Inventory] of everything goes in, [Decide] says of each version why it
// stays or that it may go, and [Run] looks twice, some minutes apart, deletes only what
// both looks found, and reads each thing again right before. What cannot be read is unknown,
// and nothing of it is deleted. Only what carries the service's label is ever
// touched: labels tell, not names.
package gc

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
)

// The kinds of resources.
const (
	Disk     = "disk"
	Snapshot = "snapshot"
	Image    = "image"
	Object   = "object"
)

// Resource is a thing of the service's.
type Resource struct {
	Kind string `json:"kind"`
	// Project and Zone are where it is; Zone is empty for what is not in a
	// zone, Project for an object.
	Project string `json:"project,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Name    string `json:"name"`
	// Version is the value of its version label; for an object, what its name
	// says.
	Version string `json:"version"`
	// ID is Compute Engine's numeric id or the object's generation: it tells a
	// thing from another one of the same name.
	ID uint64 `json:"id,string"`
	// Created is when it was made, Touched when it was last attached or
	// detached; zero if never.
	Created time.Time `json:"created"`
	Touched time.Time `json:"touched,omitzero"`
	// Users are the instances it is attached to.
	Users []string `json:"users,omitempty"`
	// SHA is the label sha, or what stands for it at an object.
	SHA   string `json:"-"`
	Bytes int64  `json:"bytes"`
}

// Path names the resource: "projects/P/zones/Z/disks/D", "gs://B/O".
func (r *Resource) Path() string {
	switch r.Kind {
	case Object:
		return r.Name
	case Disk:
		return "projects/" + r.Project + "/zones/" + r.Zone + "/disks/" + r.Name
	}
	return "projects/" + r.Project + "/global/" + r.Kind + "s/" + r.Name
}

// key tells things apart over two looks.
type key struct {
	path string
	id   uint64
}

func (r *Resource) key() key { return key{r.Path(), r.ID} }

// Inventory is what one look found.
type Inventory struct {
	Resources []Resource
	// Uses has the paths of disks, images and snapshots that something uses,
	// and what.
	Uses map[string]string
	// UnknownZones ("PROJECT/ZONE") and UnknownProjects could not be read, and
	// why.
	UnknownZones    map[string]string
	UnknownProjects map[string]string
	// Refs are the versions that rollouts refer to.
	Refs []string
}

func newInventory() *Inventory {
	return &Inventory{Uses: map[string]string{}, UnknownZones: map[string]string{}, UnknownProjects: map[string]string{}}
}

// collector fills an inventory.
type collector struct {
	cfg     *fleet.Config
	compute Compute
	objects Objects
	inv     *Inventory
}

// collect reads everything but the rollouts' state.
func collect(ctx context.Context, cfg *fleet.Config, compute Compute, objects Objects) (*Inventory, error) {
	c := &collector{cfg, compute, objects, newInventory()}
	for _, project := range cfg.Projects() {
		if err := c.project(ctx, project); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			c.inv.UnknownProjects[project] = err.Error()
		}
	}
	if err := c.bucket(ctx); err != nil {
		return nil, err
	}
	slices.SortFunc(c.inv.Resources, func(a, b Resource) int { return cmp.Compare(a.Path(), b.Path()) })
	return c.inv, nil
}

func (c *collector) project(ctx context.Context, project string) error {
	steps := []func(context.Context, string) error{c.disks, c.instances, c.templates, c.images, c.snapshots}
	for _, step := range steps {
		if err := step(ctx, project); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) unreachable(project string, zones []string) {
	for _, zone := range zones {
		c.inv.UnknownZones[project+"/"+zone] = "it cannot be reached"
	}
}

func (c *collector) ours(labels map[string]string) bool {
	return labels[fleet.LabelService] == c.cfg.Service && labels[fleet.LabelVersion] != ""
}

// disks lists all disks: those of others may be made from an image of ours, as
// boot disks are.
func (c *collector) disks(ctx context.Context, project string) error {
	disks, missing, err := c.compute.Disks(ctx, project, "")
	if err != nil {
		return err
	}
	c.unreachable(project, missing)
	for _, d := range disks {
		if !c.ours(d.GetLabels()) {
			c.use(d.GetSourceImage(), "disk "+d.GetName()+" was made from it")
			c.use(d.GetSourceSnapshot(), "disk "+d.GetName()+" was made from it")
			continue
		}
		r := Resource{
			Kind: Disk, Project: project, Zone: gce.Base(d.GetZone()), Name: d.GetName(), Version: d.GetLabels()[fleet.LabelVersion],
			ID: d.GetId(), Created: parseTime(d.GetCreationTimestamp()), SHA: d.GetLabels()[fleet.LabelSHA], Bytes: d.GetSizeGb() << 30,
		}
		for _, touched := range []string{d.GetLastAttachTimestamp(), d.GetLastDetachTimestamp()} {
			if t := parseTime(touched); t.After(r.Touched) {
				r.Touched = t
			}
		}
		for _, user := range d.GetUsers() {
			r.Users = append(r.Users, gce.Path(user))
		}
		c.inv.Resources = append(c.inv.Resources, r)
	}
	return nil
}

// instances lists all instances, whatever state they are in.
func (c *collector) instances(ctx context.Context, project string) error {
	instances, missing, err := c.compute.Instances(ctx, project, "")
	if err != nil {
		return err
	}
	c.unreachable(project, missing)
	for _, i := range instances {
		for _, d := range i.GetDisks() {
			c.use(d.GetSource(), "instance "+i.GetName()+" has it")
		}
	}
	return nil
}

// templates lists instance templates. Where a region's cannot be read, its zones
// are unknown: a template may name any of their disks.
func (c *collector) templates(ctx context.Context, project string) error {
	templates, missing, err := c.compute.Templates(ctx, project, "")
	if err != nil {
		return err
	}
	for _, region := range missing {
		c.inv.UnknownZones[project+"/"+region] = "its instance templates cannot be read"
		for _, t := range c.cfg.Targets {
			for _, z := range t.Zones {
				if t.Project == project && strings.HasPrefix(z.Name, region+"-") {
					c.inv.UnknownZones[project+"/"+z.Name] = "instance templates of " + region + " cannot be read"
				}
			}
		}
	}
	for _, t := range templates {
		why := "instance template " + t.GetName() + " names it"
		for _, d := range t.GetProperties().GetDisks() {
			c.use(d.GetSource(), why)
			c.use(d.GetInitializeParams().GetSourceImage(), why)
			c.use(d.GetInitializeParams().GetSourceSnapshot(), why)
			c.name(project, d.GetSource(), why)
		}
	}
	return nil
}

// use notes that the resource at a URL is used.
func (c *collector) use(url, why string) {
	if url != "" {
		c.inv.Uses[absolute(url)] = why
	}
}

// name notes that a template names a disk by its bare name, in whichever zone.
func (c *collector) name(project, source, why string) {
	if source != "" && !strings.Contains(source, "/") {
		c.inv.Uses["projects/"+project+"/*/disks/"+source] = why
	}
}

// absolute is a resource's path, "projects/P/…"; partial URLs keep their form.
func absolute(url string) string { return strings.TrimPrefix(gce.Path(url), "/") }

func (c *collector) images(ctx context.Context, project string) error {
	images, err := c.compute.Images(ctx, project, "")
	if err != nil {
		return err
	}
	for _, i := range images {
		if !c.ours(i.GetLabels()) {
			c.use(i.GetSourceImage(), "image "+i.GetName()+" was made from it")
			c.use(i.GetSourceDisk(), "image "+i.GetName()+" was made from it")
			continue
		}
		c.inv.Resources = append(c.inv.Resources, Resource{
			Kind: Image, Project: project, Name: i.GetName(), Version: i.GetLabels()[fleet.LabelVersion], ID: i.GetId(),
			Created: parseTime(i.GetCreationTimestamp()), SHA: i.GetLabels()[fleet.LabelSHA], Bytes: i.GetArchiveSizeBytes(),
		})
	}
	return nil
}

func (c *collector) snapshots(ctx context.Context, project string) error {
	snapshots, err := c.compute.Snapshots(ctx, project, "")
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		if c.ours(s.GetLabels()) {
			c.inv.Resources = append(c.inv.Resources, Resource{
				Kind: Snapshot, Project: project, Name: s.GetName(), Version: s.GetLabels()[fleet.LabelVersion], ID: s.GetId(),
				Created: parseTime(s.GetCreationTimestamp()), SHA: s.GetLabels()[fleet.LabelSHA], Bytes: s.GetStorageBytes(),
			})
		}
	}
	return nil
}

// bucket lists the service's objects: SERVICE/VERSION/…, with the image's
// SHA-256 noted by publishing. An object without that is not ours.
func (c *collector) bucket(ctx context.Context) error {
	objects, err := c.objects.List(ctx, c.cfg.Bucket, c.cfg.Service+"/")
	if err != nil {
		return err
	}
	for _, o := range objects {
		version, _, isVersion := strings.Cut(strings.TrimPrefix(o.Name, c.cfg.Service+"/"), "/")
		sha := o.Metadata[shaKey]
		if !isVersion || version == "" || sha == "" {
			continue
		}
		c.inv.Resources = append(c.inv.Resources, Resource{
			Kind: Object, Name: "gs://" + c.cfg.Bucket + "/" + o.Name, Version: c.versionOf(version, fleet.SHALabel(sha)),
			ID: uint64(o.Generation), Created: o.Created, SHA: fleet.SHALabel(sha), Bytes: o.Size,
		})
	}
	return nil
}

// versionOf is the version label that goes with the version in an object's
// name: the same, or that of what was made from the same image where the version
// is no name by itself.
func (c *collector) versionOf(inName, sha string) string {
	same := ""
	for _, r := range c.inv.Resources {
		if r.Kind == Object {
			continue
		}
		if r.Version == inName {
			return inName
		}
		if r.SHA == sha && same == "" {
			same = r.Version
		}
	}
	if same != "" && fleet.ObjectPrefix(c.cfg.Service, inName) != c.cfg.Service+"/"+inName+"/" {
		return same
	}
	return inName
}

func parseTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}
	}
	return t
}
