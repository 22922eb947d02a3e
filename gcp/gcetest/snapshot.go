package gcetest

import (
	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// snapshot is what snapshots.insert and disks.createSnapshot make.
type snapshot struct {
	pb    *computepb.Snapshot
	users int // disks being made from it
}

func (s *snapshot) message() proto.Message { return s.pb }

func (s *Server) insertSnapshot(c *call) (*change, error) {
	pb := c.body.(*computepb.Snapshot)
	if pb.GetSourceDisk() == "" {
		return nil, errRequired("resource.sourceDisk")
	}
	return s.snapshotOf(c, pb, pb.GetSourceDisk(), "insert", link{c.project, "", "snapshots", pb.GetName()})
}

func (s *Server) createSnapshot(c *call) (*change, error) {
	pb := c.body.(*computepb.Snapshot)
	if _, err := s.findDisk(c); err != nil {
		return nil, err
	}
	self := c.link("disks")
	return s.snapshotOf(c, pb, self.url(), "createSnapshot", self)
}

func (s *Server) snapshotOf(c *call, pb *computepb.Snapshot, source, kind string, target link) (*change, error) {
	if err := checkName("resource.name", pb.GetName()); err != nil {
		return nil, err
	}
	if err := checkLabels(pb.Labels); err != nil {
		return nil, err
	}
	from, err := s.diskOrigin(c, "resource.sourceDisk", source, true)
	if err != nil {
		return nil, err
	}
	home, self := place{c.project, ""}, link{c.project, "", "snapshots", pb.GetName()}
	if _, ok := s.snapshots.get(home, pb.GetName()); ok {
		return nil, errExists(self.path())
	}
	snap := &snapshot{pb: s.newSnapshotPb(pb, self, from)}
	s.snapshots.put(home, pb.GetName(), snap)
	from.hold(1)
	return &change{kind: kind, target: target, targetID: snap.pb.GetId(), late: from.late,
		apply: func() *opError {
			from.hold(-1)
			snap.pb = edited(snap.pb, func(m *computepb.Snapshot) { m.Status = proto.String(statusReady) })
			return nil
		},
		undo: func() {
			from.hold(-1)
			s.snapshots.remove(home, pb.GetName())
		},
	}, nil
}

func (s *Server) newSnapshotPb(pb *computepb.Snapshot, self link, from origin) *computepb.Snapshot {
	return edited(pb, func(m *computepb.Snapshot) {
		m.Kind, m.Id, m.Status = proto.String("compute#snapshot"), proto.Uint64(s.newID()), proto.String("CREATING")
		m.SelfLink, m.CreationTimestamp = proto.String(self.url()), s.now()
		m.SourceDisk, m.SourceDiskId, m.DiskSizeGb = proto.String(from.link.url()), proto.String(from.id), &from.sizeGB
		m.LabelFingerprint = proto.String(fingerprint(m.Labels))
		if len(m.StorageLocations) == 0 {
			m.StorageLocations = []string{"us"}
		}
	})
}

func (s *Server) findSnapshot(c *call) (*snapshot, error) {
	snap, ok := s.snapshots.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("snapshots").path())
	}
	return snap, nil
}

func (s *Server) getSnapshot(c *call) (proto.Message, error) {
	snap, err := s.findSnapshot(c)
	if err != nil {
		return nil, err
	}
	return snap.pb, nil
}

func (s *Server) listSnapshots(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.snapshots, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.SnapshotList{Kind: proto.String("compute#snapshotList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Snapshot))
	}
	return list, nil
}

func (s *Server) deleteSnapshot(c *call) (*change, error) {
	snap, err := s.findSnapshot(c)
	if err != nil {
		return nil, err
	}
	self := c.link("snapshots")
	if snap.pb.GetStatus() != statusReady || snap.users > 0 {
		return nil, errNotReady(self.path())
	}
	setStatus := func(status string) {
		snap.pb = edited(snap.pb, func(m *computepb.Snapshot) { m.Status = &status })
	}
	setStatus(statusDeleting)
	return &change{kind: "delete", target: self, targetID: snap.pb.GetId(),
		apply: func() *opError { s.snapshots.remove(c.place(), c.name); return nil },
		undo:  func() { setStatus(statusReady) },
	}, nil
}

func (s *Server) setSnapshotLabels(c *call) (*change, error) {
	snap, err := s.findSnapshot(c)
	if err != nil {
		return nil, err
	}
	req := c.body.(*computepb.GlobalSetLabelsRequest)
	if err := checkNewLabels(req.Labels, req.GetLabelFingerprint(), snap.pb.GetLabelFingerprint()); err != nil {
		return nil, err
	}
	return &change{kind: "setLabels", target: c.link("snapshots"), targetID: snap.pb.GetId(), apply: func() *opError {
		snap.pb = edited(snap.pb, func(m *computepb.Snapshot) {
			m.Labels, m.LabelFingerprint = req.Labels, proto.String(fingerprint(req.Labels))
		})
		return nil
	}}, nil
}
