package gcetest

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// origin is what an image, a disk or a snapshot is made from.
type origin struct {
	link     link
	id       string
	sizeGB   int64
	users    *int // counts what is being made from it
	warnings []*computepb.Warnings
	late     *opError // what the operation is bound to fail with
	copied   func()   // counts what is made from a disk
}

// hold adds n to what is being made from the source, so that it is not deleted meanwhile.
func (o origin) hold(n int) {
	if o.users != nil {
		*o.users += n
	}
	if n > 0 && o.copied != nil && o.late == nil {
		o.copied()
	}
}

func (s *Server) imageOrigin(c *call, field, raw string) (origin, error) {
	l, err := parseKind(field, raw, c.project, "images")
	if err != nil {
		return origin{}, err
	}
	img, ok := s.images.get(place{l.project, ""}, l.name)
	if l.kind == "images/family" {
		img = s.newestOf(l.project, l.name)
		ok = img != nil
	}
	if !ok {
		return origin{}, errInvalid(field, raw, "The referenced image resource cannot be found.")
	}
	if img.pb.GetStatus() != statusReady {
		return origin{}, errNotReady(l.path())
	}
	l.kind, l.name = "images", img.pb.GetName()
	o := origin{link: l, id: strconv.FormatUint(img.pb.GetId(), 10), sizeGB: img.pb.GetDiskSizeGb(), users: &img.users}
	switch img.pb.GetDeprecated().GetState() {
	case "OBSOLETE", "DELETED":
		return origin{}, errInvalid(field, raw, "The image is %s and cannot be used.", img.pb.GetDeprecated().GetState())
	case "DEPRECATED":
		o.warnings = append(o.warnings, warning("DEPRECATED_RESOURCE_USED", "The resource '"+l.path()+"' is deprecated."))
	}
	return o, nil
}

func (s *Server) snapshotOrigin(c *call, field, raw string) (origin, error) {
	l, err := parseKind(field, raw, c.project, "snapshots")
	if err != nil {
		return origin{}, err
	}
	snap, ok := s.snapshots.get(place{l.project, ""}, l.name)
	if !ok {
		return origin{}, errInvalid(field, raw, "The referenced snapshot resource cannot be found.")
	}
	if snap.pb.GetStatus() != statusReady {
		return origin{}, errNotReady(l.path())
	}
	return origin{link: l, id: strconv.FormatUint(snap.pb.GetId(), 10), sizeGB: snap.pb.GetDiskSizeGb(), users: &snap.users}, nil
}

// diskOrigin finds the disk that something is made from. A disk that an instance
// writes to is refused unless force is set.
func (s *Server) diskOrigin(c *call, field, raw string, force bool) (origin, error) {
	l, err := parseKind(field, raw, c.project, "disks")
	if err != nil {
		return origin{}, err
	}
	d, ok := s.disks.get(place{l.project, l.zone}, l.name)
	if !ok {
		return origin{}, errInvalid(field, raw, "The referenced disk resource cannot be found.")
	}
	if d.pb.GetStatus() != statusReady {
		return origin{}, errNotReady(l.path())
	}
	for _, a := range d.attachments {
		if a.mode == readWrite && !force {
			return origin{}, errInUse(l.path(), a.inst.link().path())
		}
	}
	now := s.present()
	return origin{link: l, id: strconv.FormatUint(d.pb.GetId(), 10), sizeGB: d.pb.GetSizeGb(), users: &d.users,
		late: s.copyRate(d, now), copied: func() { d.copies = append(d.copies, now) }}, nil
}

// copyRate refuses, inside the operation, more than some images, snapshots and
// clones of a disk within an hour.
func (s *Server) copyRate(d *disk, now time.Time) *opError {
	d.copies = slices.DeleteFunc(d.copies, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	if len(d.copies) >= s.opt.CopiesPerHour {
		return &opError{code: "RESOURCE_OPERATION_RATE_EXCEEDED", status: http.StatusForbidden,
			message: "Operation rate exceeded for resource '" + d.link().path() + "'. Too frequent operations from the source resource."}
	}
	return nil
}

func warning(code, text string) *computepb.Warnings {
	return &computepb.Warnings{Code: &code, Message: proto.String(text)}
}
