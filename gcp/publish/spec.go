package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
)

const gib = 1 << 30

// ImageSpec is the Compute Engine image of a version in a storage location.
type ImageSpec struct {
	Config   *fleet.Config
	Project  string
	Location string
	Version  string
	SHA      string // the image's SHA-256, or [fleet.SHALabel] of it
	Object   string // the archive's name in the bucket
	SizeGB   int64  // of disk.raw
}

// Name is the image's.
func (s ImageSpec) Name() string { return fleet.ImageName(s.Config.Service, s.Version, s.Location) }

// Link refers to the image in requests.
func (s ImageSpec) Link() string { return gce.Link(s.Project, "global/images/"+s.Name()) }

// Image is what is asked for.
func (s ImageSpec) Image() *computepb.Image {
	return &computepb.Image{
		Name:             proto.String(s.Name()),
		Description:      describe(s.Version, s.SHA),
		Family:           proto.String(s.Config.Service),
		Labels:           labels(s.Config, s.Version, s.SHA),
		StorageLocations: []string{s.Location},
		RawDisk: &computepb.RawDisk{
			Source: proto.String("https://storage.googleapis.com/" + s.Config.Bucket + "/" + s.Object),
		},
	}
}

// differs compares an image that exists with what is asked for.
func (s ImageSpec) differs(have *computepb.Image) []string {
	d := compareLabels(have.GetLabels(), labels(s.Config, s.Version, s.SHA))
	if statusOf(have.GetStatus()) == ready && have.GetDiskSizeGb() != s.SizeGB {
		d = append(d, fmt.Sprintf("its size is %d GB, and %d GB are wanted", have.GetDiskSizeGb(), s.SizeGB))
	}
	if at := have.GetStorageLocations(); len(at) > 0 && !slices.Contains(at, s.Location) {
		d = append(d, fmt.Sprintf("it is stored in %v, and %s is wanted", at, s.Location))
	}
	return d
}

// DiskSpec is one copy of a version's disk in a zone.
type DiskSpec struct {
	Config  *fleet.Config
	Project string
	Zone    fleet.Zone
	Version string
	SHA     string // the image's SHA-256, or [fleet.SHALabel] of it
	Copy    int    // from 1
	SizeGB  int64  // of the image or snapshot
	// Image or Snapshot is the link of what the disk is made from, and
	// SourceID its ID, 0 where it is not known.
	Image    string
	Snapshot string
	SourceID uint64
}

// Name is the disk's.
func (s DiskSpec) Name() string {
	return fleet.DiskName(s.Config.Service, s.Version, s.Zone.Name, s.Copy)
}

// size is the disk's in GB: the source's, or the least that the type can have.
func (s DiskSpec) size() int64 {
	t, _ := fleet.DiskTypeNamed(s.Zone.DiskType)
	return max(s.SizeGB, t.MinGB)
}

// Disk is what is asked for.
func (s DiskSpec) Disk() *computepb.Disk {
	d := &computepb.Disk{
		Name:        proto.String(s.Name()),
		Description: describe(s.Version, s.SHA),
		Labels:      s.labels(),
		Type:        proto.String(fleet.DiskTypeURL(s.Project, s.Zone.Name, s.Zone.DiskType)),
		SizeGb:      proto.Int64(s.size()),
	}
	if s.Snapshot != "" {
		d.SourceSnapshot = proto.String(s.Snapshot)
	} else {
		d.SourceImage = proto.String(s.Image)
	}
	if t, _ := fleet.DiskTypeNamed(s.Zone.DiskType); t.AccessModes {
		d.AccessMode = proto.String(computepb.Disk_READ_ONLY_MANY.String())
	}
	return d
}

func (s DiskSpec) labels() map[string]string {
	l := labels(s.Config, s.Version, s.SHA)
	l[fleet.LabelCopy] = strconv.Itoa(s.Copy)
	return l
}

// differs compares a disk that exists with what is asked for.
func (s DiskSpec) differs(have *computepb.Disk) []string {
	d := compareLabels(have.GetLabels(), s.labels())
	add := func(format string, args ...any) { d = append(d, fmt.Sprintf(format, args...)) }
	if have.GetSizeGb() != s.size() {
		add("its size is %d GB, and %d GB are wanted", have.GetSizeGb(), s.size())
	}
	if t := gce.Base(have.GetType()); t != s.Zone.DiskType {
		add("its type is %s, and %s is wanted", t, s.Zone.DiskType)
	}
	from, wanted, id := have.GetSourceImage(), s.Image, have.GetSourceImageId()
	if s.Snapshot != "" {
		from, wanted, id = have.GetSourceSnapshot(), s.Snapshot, have.GetSourceSnapshotId()
	}
	if from != "" && gce.Path(from) != gce.Path(wanted) {
		add("it was made from %s, and %s is wanted", gce.Path(from), gce.Path(wanted))
	} else if other, err := strconv.ParseUint(id, 10, 64); err == nil && s.SourceID != 0 && other != s.SourceID {
		add("it was made from an earlier %s", gce.Path(wanted))
	}
	if t, _ := fleet.DiskTypeNamed(s.Zone.DiskType); t.AccessModes && have.GetAccessMode() != computepb.Disk_READ_ONLY_MANY.String() {
		add("its access mode is %s, and READ_ONLY_MANY is wanted", have.GetAccessMode())
	}
	return d
}

// EnsureDisk makes the disk unless it is there, and returns when it is ready.
// What exists and is another one is a [*DiffersError]; other errors are those
// of the Compute Engine client. It does not wait for a zone to get resources.
func (m *Maker) EnsureDisk(ctx context.Context, s DiskSpec, knownAbsent bool) (State, error) {
	name := "disk " + s.Name() + " in " + s.Project + ", " + s.Zone.Name
	return m.ensure(ctx, resource{
		name: name,
		look: func(ctx context.Context) (status, error) {
			have, err := m.Compute.Disk(ctx, s.Project, s.Zone.Name, s.Name())
			return judge(name, have.GetStatus(), err, func() []string { return s.differs(have) })
		},
		insert: func(ctx context.Context) error {
			return m.Compute.InsertDisk(ctx, s.Project, s.Zone.Name, s.Disk())
		},
		remove: func(ctx context.Context) error {
			return m.Compute.DeleteDisk(ctx, s.Project, s.Zone.Name, s.Name())
		},
	}, knownAbsent)
}

// EnsureImage makes the image unless it is there, and returns it when it is
// ready.
func (m *Maker) EnsureImage(ctx context.Context, s ImageSpec) (*computepb.Image, State, error) {
	name := "image " + s.Name() + " in " + s.Project
	var have *computepb.Image
	look := func(ctx context.Context) (status, error) {
		got, err := m.Compute.Image(ctx, s.Project, s.Name())
		have = got
		return judge(name, got.GetStatus(), err, func() []string { return s.differs(got) })
	}
	state, err := m.ensure(ctx, resource{
		name: name, look: look,
		insert: func(ctx context.Context) error { return m.Compute.InsertImage(ctx, s.Project, s.Image()) },
		remove: func(ctx context.Context) error { return m.Compute.DeleteImage(ctx, s.Project, s.Name()) },
	}, false)
	if err == nil && state == Created {
		_, err = look(ctx)
	}
	return have, state, err
}

// judge turns what a read returned into a status.
func judge(name, status string, err error, differs func() []string) (status, error) {
	switch {
	case errors.Is(err, gce.ErrNotFound):
		return absent, nil
	case err != nil:
		return absent, err
	}
	now := statusOf(status)
	if now == going {
		return now, nil
	}
	if d := differs(); len(d) > 0 {
		return now, &DiffersError{Resource: name, What: d}
	}
	return now, nil
}

// labels are ours and the user's.
func labels(c *fleet.Config, version, sha string) map[string]string {
	l := make(map[string]string, len(c.Labels)+4)
	maps.Copy(l, c.Labels)
	l[fleet.LabelService] = c.Service
	l[fleet.LabelVersion] = fleet.LabelValue(version)
	l[fleet.LabelSHA] = fleet.SHALabel(sha)
	return l
}

// compareLabels says which of our labels differ. The user's may have been
// changed since.
func compareLabels(have, want map[string]string) []string {
	var d []string
	for _, name := range []string{fleet.LabelService, fleet.LabelVersion, fleet.LabelSHA, fleet.LabelCopy} {
		value, wanted := want[name]
		switch has, there := have[name]; {
		case wanted && !there:
			d = append(d, fmt.Sprintf("it has no label %s, and %q is wanted", name, value))
		case wanted && has != value:
			d = append(d, fmt.Sprintf("its label %s is %q, and %q is wanted", name, has, value))
		}
	}
	return d
}

// describe is the description of what is made: free text, for people.
func describe(version, sha string) *string {
	return proto.String("version " + version + ", image SHA-256 " + sha)
}

// sizeGB is how many GiB an image takes, as an archive is padded to.
func sizeGB(bytes int64) int64 { return (bytes + gib - 1) / gib }
