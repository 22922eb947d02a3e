package gcetest

import (
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

const maxDiskGB = 64 << 10 // 64 TiB

// disk is a zonal disk.
type disk struct {
	pb          *computepb.Disk
	place       place
	typeName    string
	attachments []*attachment // under way, attached and on their way out
	users       int           // images and snapshots being made from it
	lastAttach  time.Time
	lastDetach  time.Time
	copies      []time.Time // images, snapshots and clones of it in the last hour
}

func (d *disk) message() proto.Message { return d.pb }

func (d *disk) link() link { return link{d.place.project, d.place.zone, "disks", d.pb.GetName()} }

// AddDisk puts a READY disk into the zone, as if it had been there before. Its
// type is pd-ssd unless it says otherwise.
func (s *Server) AddDisk(project, zone string, pb *computepb.Disk) {
	s.locked(func() { s.addDisk(place{project, zone}, pb) })
}

func (s *Server) addDisk(p place, pb *computepb.Disk) *disk {
	typeName := "pd-ssd"
	if pb.Type != nil {
		typeName = pb.GetType()[strings.LastIndexByte(pb.GetType(), '/')+1:]
	}
	d := s.newDisk(p, pb, typeName, origin{}, statusReady)
	s.disks.put(p, pb.GetName(), d)
	return d
}

// newDisk fills in what the service does.
func (s *Server) newDisk(p place, pb *computepb.Disk, typeName string, from origin, status string) *disk {
	t, _ := diskTypeOf(typeName)
	d := &disk{place: p, typeName: typeName}
	d.pb = edited(pb, func(m *computepb.Disk) {
		m.Kind, m.Id, m.Status = proto.String("compute#disk"), proto.Uint64(s.newID()), &status
		m.SelfLink = proto.String(link{p.project, p.zone, "disks", pb.GetName()}.url())
		m.Zone, m.CreationTimestamp = proto.String(zoneURL(p.project, p.zone)), s.now()
		m.Type = proto.String(zoneURL(p.project, p.zone) + "/diskTypes/" + typeName)
		m.LabelFingerprint = proto.String(fingerprint(m.Labels))
		m.PhysicalBlockSizeBytes = proto.Int64(4096)
		m.Users, m.LastAttachTimestamp, m.LastDetachTimestamp = nil, nil, nil
		if m.SizeGb == nil {
			m.SizeGb = proto.Int64(max(from.sizeGB, t.minGB))
			if from.sizeGB == 0 {
				m.SizeGb = proto.Int64(t.defaultGB)
			}
		}
		if m.AccessMode == nil && len(t.accessModes) > 0 {
			m.AccessMode = proto.String(readWriteSingle)
		}
	})
	if from.id != "" {
		d.setSource(from)
	}
	return d
}

// setSource notes what a new disk is made from, and in which incarnation.
func (d *disk) setSource(from origin) {
	url := proto.String(from.link.url())
	switch from.link.kind {
	case "images":
		d.pb.SourceImage, d.pb.SourceImageId = url, &from.id
	case "snapshots":
		d.pb.SourceSnapshot, d.pb.SourceSnapshotId = url, &from.id
	case "disks":
		d.pb.SourceDisk, d.pb.SourceDiskId = url, &from.id
	}
}

func (s *Server) insertDisk(c *call) (*change, error) {
	pb := c.body.(*computepb.Disk)
	if src := c.query.Get("sourceImage"); src != "" && pb.SourceImage == nil {
		pb.SourceImage = &src
	}
	typeName, err := s.checkDisk(c, pb)
	if err != nil {
		return nil, err
	}
	from, err := s.diskSource(c, pb)
	if err != nil {
		return nil, err
	}
	if err := checkSize(pb, typeName, from); err != nil {
		return nil, err
	}
	self := c.link("disks")
	if _, ok := s.disks.get(c.place(), c.name); ok {
		return nil, errExists(self.path())
	}
	d := s.newDisk(c.place(), pb, typeName, from, "CREATING")
	s.disks.put(c.place(), c.name, d)
	from.hold(1)
	ch := &change{kind: "insert", target: self, targetID: d.pb.GetId(), warnings: from.warnings, late: from.late,
		apply: func() *opError {
			from.hold(-1)
			d.pb = edited(d.pb, func(m *computepb.Disk) { m.Status = proto.String(statusReady) })
			return nil
		},
		undo: func() {
			from.hold(-1)
			s.disks.remove(c.place(), c.name)
		},
	}
	if from.sizeGB > 0 && d.pb.GetSizeGb() > from.sizeGB {
		ch.warnings = append(ch.warnings, warning("DISK_SIZE_LARGER_THAN_IMAGE_SIZE",
			"Disk size is larger than image size. You might need to resize the root repartition manually."))
	}
	return ch, nil
}

// checkDisk validates the body of disks.insert and gives the disk's type.
func (s *Server) checkDisk(c *call, pb *computepb.Disk) (string, error) {
	if err := checkName("resource.name", pb.GetName()); err != nil {
		return "", err
	}
	if err := checkLabels(pb.Labels); err != nil {
		return "", err
	}
	typeName := "pd-standard"
	if raw := pb.GetType(); raw != "" {
		l, err := parseKind("resource.type", raw, c.project, "diskTypes")
		if err != nil {
			return "", err
		}
		if _, ok := diskTypeOf(l.name); !ok || l.zone != c.zone || l.project != c.project {
			return "", errInvalid("resource.type", raw, "The referenced diskType resource cannot be found.")
		}
		typeName = l.name
	}
	if pb.Zone != nil && pb.GetZone() != c.zone && !strings.HasSuffix(pb.GetZone(), "/zones/"+c.zone) {
		return "", errInvalid("resource.zone", pb.GetZone(), "The zone is not the one of the request.")
	}
	return typeName, checkAccessMode(typeName, pb.GetAccessMode())
}

// diskSource finds what the disk is made from: nothing, or one thing.
func (s *Server) diskSource(c *call, pb *computepb.Disk) (from origin, err error) {
	n := 0
	for _, src := range []string{pb.GetSourceImage(), pb.GetSourceSnapshot(), pb.GetSourceDisk()} {
		if src != "" {
			n++
		}
	}
	switch {
	case n > 1:
		return origin{}, errBadRequest("Only one of sourceImage, sourceSnapshot and sourceDisk may be specified.")
	case pb.GetSourceImage() != "":
		return s.imageOrigin(c, "resource.sourceImage", pb.GetSourceImage())
	case pb.GetSourceSnapshot() != "":
		return s.snapshotOrigin(c, "resource.sourceSnapshot", pb.GetSourceSnapshot())
	case pb.GetSourceDisk() != "":
		from, err = s.diskOrigin(c, "resource.sourceDisk", pb.GetSourceDisk(), true)
		if err == nil && from.link.zone != c.zone {
			err = errInvalid("resource.sourceDisk", pb.GetSourceDisk(), "The source disk must be in the zone of the new disk.")
		}
	}
	return from, err
}

func checkSize(pb *computepb.Disk, typeName string, from origin) error {
	if pb.SizeGb == nil {
		return nil
	}
	t, _ := diskTypeOf(typeName)
	switch size := pb.GetSizeGb(); {
	case size < t.minGB:
		return errInvalid("resource.sizeGb", size, "Disk size cannot be smaller than the minimum size (%d GB) of %s.", t.minGB, typeName)
	case size < from.sizeGB:
		return errInvalid("resource.sizeGb", size, "Requested disk size cannot be smaller than the %s size (%d GB)",
			strings.TrimSuffix(from.link.kind, "s"), from.sizeGB)
	case size > maxDiskGB:
		return errInvalid("resource.sizeGb", size, "Disk size cannot be larger than %d GB.", maxDiskGB)
	}
	return nil
}

func (s *Server) findDisk(c *call) (*disk, error) {
	d, ok := s.disks.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("disks").path())
	}
	return d, nil
}

func (s *Server) getDisk(c *call) (proto.Message, error) {
	d, err := s.findDisk(c)
	if err != nil {
		return nil, err
	}
	return d.pb, nil
}

func (s *Server) listDisks(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.disks, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.DiskList{Kind: proto.String("compute#diskList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Disk))
	}
	return list, nil
}

func (s *Server) aggregateDisks(c *call) (proto.Message, error) {
	places, unreachable := s.scopes(c.project)
	items, next, err := page(s, c, collect(s.disks, places))
	if err != nil {
		return nil, err
	}
	list := &computepb.DiskAggregatedList{Kind: proto.String("compute#diskAggregatedList"), NextPageToken: next,
		Unreachables: unreachable, Items: map[string]*computepb.DisksScopedList{}}
	s.aggregate(items, func(scope string, m proto.Message) {
		if list.Items[scope] == nil {
			list.Items[scope] = &computepb.DisksScopedList{}
		}
		list.Items[scope].Disks = append(list.Items[scope].Disks, m.(*computepb.Disk))
	}, func(scope string, w *computepb.Warning) {
		list.Items[scope] = &computepb.DisksScopedList{Warning: w}
	})
	return list, nil
}

func (s *Server) deleteDisk(c *call) (*change, error) {
	d, err := s.findDisk(c)
	if err != nil {
		return nil, err
	}
	s.checkDeletion(d)
	self, before := c.link("disks"), d.pb.GetStatus()
	if len(d.attachments) > 0 {
		return nil, errInUse(self.path(), d.attachments[0].inst.link().path())
	}
	if before != statusReady && before != statusFailed || d.users > 0 {
		return nil, errNotReady(self.path())
	}
	setStatus := func(status string) {
		d.pb = edited(d.pb, func(m *computepb.Disk) { m.Status = &status })
	}
	setStatus(statusDeleting)
	return &change{kind: "delete", target: self, targetID: d.pb.GetId(),
		apply: func() *opError { s.disks.remove(c.place(), c.name); return nil },
		undo:  func() { setStatus(before) },
	}, nil
}

func (s *Server) setDiskLabels(c *call) (*change, error) {
	d, err := s.findDisk(c)
	if err != nil {
		return nil, err
	}
	req := c.body.(*computepb.ZoneSetLabelsRequest)
	if err := checkNewLabels(req.Labels, req.GetLabelFingerprint(), d.pb.GetLabelFingerprint()); err != nil {
		return nil, err
	}
	return &change{kind: "setLabels", target: c.link("disks"), targetID: d.pb.GetId(), apply: func() *opError {
		d.pb = edited(d.pb, func(m *computepb.Disk) {
			m.Labels, m.LabelFingerprint = req.Labels, proto.String(fingerprint(req.Labels))
		})
		return nil
	}}, nil
}

// updateDisk changes the access mode, the one field that this server lets disks
// be updated in.
func (s *Server) updateDisk(c *call) (*change, error) {
	d, err := s.findDisk(c)
	if err != nil {
		return nil, err
	}
	pb, self := c.body.(*computepb.Disk), c.link("disks")
	fields := append(strings.Split(c.query.Get("updateMask"), ","), c.query["paths"]...)
	for _, f := range fields {
		if f != "" && f != "accessMode" && f != "access_mode" {
			return nil, errInvalid("paths", f, "The field cannot be updated.")
		}
	}
	if strings.Join(fields, "") == "" {
		return nil, errRequired("paths")
	}
	switch mode := pb.GetAccessMode(); {
	case mode == "":
		return nil, errRequired("resource.accessMode")
	case checkAccessMode(d.typeName, mode) != nil:
		return nil, checkAccessMode(d.typeName, mode)
	case d.pb.GetStatus() != statusReady:
		return nil, errNotReady(self.path())
	case len(d.attachments) > 0:
		return nil, errInUse(self.path(), d.attachments[0].inst.link().path())
	case d.pb.GetAccessMode() == readOnlyMany && mode != readOnlyMany:
		return nil, errInvalid("resource.accessMode", mode, "Access mode READ_ONLY_MANY cannot be changed.")
	}
	return &change{kind: "update", target: self, targetID: d.pb.GetId(), apply: func() *opError {
		d.pb = edited(d.pb, func(m *computepb.Disk) { m.AccessMode = pb.AccessMode })
		return nil
	}}, nil
}
