package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"

	"bigdisk/gcp/bucket"
	"bigdisk/gcp/fleet"
	"bigdisk/gcp/gce"
	"bigdisk/gcp/rollout/lease"
)

// shaKey is the metadata under which publishing notes an image's SHA-256.
const shaKey = "bigdisk-image-sha256"

// Compute is what is needed of the Compute Engine client.
type Compute interface {
	Disks(ctx context.Context, project, filter string) ([]*computepb.Disk, []string, error)
	Instances(ctx context.Context, project, filter string) ([]*computepb.Instance, []string, error)
	Templates(ctx context.Context, project, filter string) ([]*computepb.InstanceTemplate, []string, error)
	Images(ctx context.Context, project, filter string) ([]*computepb.Image, error)
	Snapshots(ctx context.Context, project, filter string) ([]*computepb.Snapshot, error)
	Disk(ctx context.Context, project, zone, name string) (*computepb.Disk, error)
	Image(ctx context.Context, project, name string) (*computepb.Image, error)
	Snapshot(ctx context.Context, project, name string) (*computepb.Snapshot, error)
	DeleteDisk(ctx context.Context, project, zone, name string) error
	DeleteImage(ctx context.Context, project, name string) error
	DeleteSnapshot(ctx context.Context, project, name string) error
	// Now is the time by the clock that dated what is listed.
	Now() time.Time
}

// Objects is what is needed of the Cloud Storage client.
type Objects interface {
	List(ctx context.Context, bucket, prefix string) ([]bucket.Attrs, error)
	Delete(ctx context.Context, bucket, object string, generation int64) error
}

// Options are the choices of [Run].
type Options struct {
	Config  *fleet.Config
	Compute Compute
	Objects Objects
	// State is the rollouts' document.
	State lease.Store
	// Delete deletes; without it, Run only tells.
	Delete bool
	// Wait is the time between the two looks.
	Wait time.Duration
	// Sleep waits; by the system's clock by default.
	Sleep func(context.Context, time.Duration) error
	// Log hears of what is done; nil is silent.
	Log *slog.Logger
}

func (o *Options) fill() {
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Report is what was found and done.
type Report struct {
	Service string `json:"service"`
	// Versions is the last look's decision, newest version first.
	Versions []Version `json:"versions"`
	// Delete is what may go, by both looks where there were two.
	Delete []Resource `json:"delete"`
	// Deleted is what was deleted; Spared what was not in the end, by path, and why.
	Deleted []Resource        `json:"deleted"`
	Spared  map[string]string `json:"spared"`
	// Failed is what could not be deleted, by path.
	Failed map[string]string `json:"failed"`
	// Unknown are the zones and projects that could not be read.
	Unknown map[string]string `json:"unknown"`
}

// ErrFailed is wrapped by errors about things that could not be deleted.
var ErrFailed = errors.New("not everything could be deleted")

// ErrUnread is wrapped by the error about zones and projects that could not be
// read: what is there was not looked at, and nothing of it deleted.
var ErrUnread = errors.New("not everything could be read")

// Run looks, and with Options.Delete waits, looks again, and deletes what both
// looks say may go. What cannot be read ends nothing, but is an error that wraps
// [ErrUnread]. The report is there also with an error.
func Run(ctx context.Context, o Options) (*Report, error) {
	o.fill()
	report := &Report{
		Service: o.Config.Service, Versions: []Version{}, Deleted: []Resource{}, Delete: []Resource{},
		Failed: map[string]string{}, Spared: map[string]string{}, Unknown: map[string]string{},
	}
	err := o.run(ctx, report)
	if ctx.Err() == nil {
		err = errors.Join(err, report.unread())
	}
	return report, err
}

// unread is the error about what could not be read; nil if all could.
func (r *Report) unread() error {
	names := slices.Sorted(maps.Keys(r.Unknown))
	switch len(names) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("%w: %s", ErrUnread, names[0])
	}
	return fmt.Errorf("%w: %s, and %d more", ErrUnread, names[0], len(names)-1)
}

// run is [Run], into a report.
func (o *Options) run(ctx context.Context, report *Report) error {
	first, err := o.look(ctx, report)
	if err != nil || !o.Delete || len(first.Delete) == 0 {
		return err
	}
	o.Log.Info("looking again before anything is deleted", "in", o.Wait, "candidates", len(first.Delete))
	if err := o.Sleep(ctx, o.Wait); err != nil {
		return err
	}
	second, err := o.look(ctx, report)
	if err != nil {
		return err
	}
	report.Delete = both(first.Delete, second.Delete)
	return o.sweep(ctx, report)
}

// look takes one look.
func (o *Options) look(ctx context.Context, report *Report) (*Decision, error) {
	inv, err := collect(ctx, o.Config, o.Compute, o.Objects)
	if err != nil {
		return nil, err
	}
	if inv.Refs, err = o.refs(ctx); err != nil {
		return nil, err
	}
	d := Decide(o.Config, inv, o.Compute.Now()) // what is younger than this machine's clock says must not go
	report.Versions, report.Delete = d.Versions, d.Delete
	clear(report.Spared)
	maps.Copy(report.Spared, d.Spared)
	maps.Copy(report.Unknown, inv.UnknownZones)
	maps.Copy(report.Unknown, inv.UnknownProjects)
	return d, nil
}

// refs are the versions that rollouts refer to.
func (o *Options) refs(ctx context.Context) ([]string, error) {
	d, generation, err := lease.Read(ctx, o.State, o.Config.Service)
	if in, prefix := o.Config.StateLocation(); err == nil && generation == 0 && in != o.Config.Bucket {
		// No document looks like no bucket, and a bucket that is not there tells nothing.
		_, err = o.Objects.List(ctx, in, path.Join(prefix, o.Config.Service))
	}
	if err == nil {
		err = d.Foreign(o.Config)
	}
	if err != nil {
		return nil, fmt.Errorf("what rollouts refer to is not known, and nothing is deleted: %w", err)
	}
	return d.Versions(), nil
}

// both is what is in both looks, unchanged.
func both(first, second []Resource) []Resource {
	touched := map[key]time.Time{}
	for _, r := range first {
		touched[r.key()] = r.Touched
	}
	same := []Resource{}
	for _, r := range second {
		if was, there := touched[r.key()]; there && was.Equal(r.Touched) {
			same = append(same, r)
		}
	}
	return same
}

// order is that of deletion: what others are made from goes last, so that a
// version that turns out to be in use can still get new disks.
var order = []string{Disk, Snapshot, Image, Object}

// sweep deletes, version by version. A version whose disks could not all be
// deleted keeps the rest.
func (o *Options) sweep(ctx context.Context, report *Report) error {
	versions := map[string][]Resource{}
	for _, r := range report.Delete {
		versions[r.Version] = append(versions[r.Version], r)
	}
	for _, version := range slices.Sorted(maps.Keys(versions)) {
		resources := versions[version]
		slices.SortStableFunc(resources, func(a, b Resource) int {
			return cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind))
		})
		kind, broken := "", false
		for _, r := range resources {
			if broken && r.Kind != kind {
				report.Spared[r.Path()] = "something else of its version is still there"
				continue
			}
			kind = r.Kind
			if !o.remove(ctx, &r, report) {
				broken = true
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	if len(report.Failed) > 0 {
		return fmt.Errorf("%w: %d of %d are left", ErrFailed, len(report.Failed), len(report.Delete))
	}
	return nil
}

// remove deletes one resource if it still is as it was and nobody has begun to
// need it.
func (o *Options) remove(ctx context.Context, r *Resource, report *Report) (gone bool) {
	why, err := o.changed(ctx, r)
	if errors.Is(err, gce.ErrNotFound) {
		return true
	}
	if err == nil && why == "" {
		why, err = o.referred(ctx, r)
	}
	if err == nil && why != "" {
		report.Spared[r.Path()] = why
		return false
	}
	if err == nil {
		err = o.delete(ctx, r)
	}
	switch {
	case err == nil, errors.Is(err, gce.ErrNotFound):
		o.Log.Info("deleted", "what", r.Path())
		report.Deleted = append(report.Deleted, *r)
		return true
	case errors.Is(err, gce.ErrInUse):
		report.Spared[r.Path()] = err.Error()
	default:
		report.Failed[r.Path()] = err.Error()
	}
	return false
}

// referred says which rollout needs a resource; it is asked last of all, for a
// rollout that begins after it sees the resource go, and one that began before
// is seen.
func (o *Options) referred(ctx context.Context, r *Resource) (string, error) {
	refs, err := o.refs(ctx)
	if err == nil && slices.ContainsFunc(refs, func(ref string) bool { return refersTo(o.Config, ref, r.Version) }) {
		return "a rollout refers to it now", nil
	}
	return "", err
}

// changed reads a resource again and says what is different; "" if nothing is.
func (o *Options) changed(ctx context.Context, r *Resource) (string, error) {
	var labels map[string]string
	var id uint64
	switch r.Kind {
	case Object:
		return "", nil // its generation is a condition of the deletion
	case Disk:
		d, err := o.Compute.Disk(ctx, r.Project, r.Zone, r.Name)
		if err != nil {
			return "", err
		}
		touched := parseTime(d.GetLastAttachTimestamp()).After(r.Touched) || parseTime(d.GetLastDetachTimestamp()).After(r.Touched)
		if len(d.GetUsers()) > 0 || touched {
			return "it was attached since", nil
		}
		labels, id = d.GetLabels(), d.GetId()
	case Image:
		i, err := o.Compute.Image(ctx, r.Project, r.Name)
		if err != nil {
			return "", err
		}
		labels, id = i.GetLabels(), i.GetId()
	case Snapshot:
		s, err := o.Compute.Snapshot(ctx, r.Project, r.Name)
		if err != nil {
			return "", err
		}
		labels, id = s.GetLabels(), s.GetId()
	}
	if id != r.ID || labels[fleet.LabelService] != o.Config.Service || labels[fleet.LabelVersion] != r.Version {
		return "it is another one now", nil
	}
	return "", nil
}

func (o *Options) delete(ctx context.Context, r *Resource) error {
	switch r.Kind {
	case Disk:
		return o.Compute.DeleteDisk(ctx, r.Project, r.Zone, r.Name)
	case Image:
		return o.Compute.DeleteImage(ctx, r.Project, r.Name)
	case Snapshot:
		return o.Compute.DeleteSnapshot(ctx, r.Project, r.Name)
	}
	in, object, _ := strings.Cut(strings.TrimPrefix(r.Name, "gs://"), "/")
	return o.Objects.Delete(ctx, in, object, int64(r.ID))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
