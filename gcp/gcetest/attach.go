package gcetest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/guest"
)

type attachState int

const (
	attaching attachState = iota
	attached
	detaching
)

// attachment is a disk on an instance, or on its way there or away.
type attachment struct {
	inst   *instance
	disk   *disk
	pb     *computepb.AttachedDisk
	device string
	mode   string
	state  attachState
	since  time.Time    // when it became attached
	health guest.Health // what the instance said last about it
}

// newAttachment takes the place on both sides.
func (s *Server) newAttachment(i *instance, d *disk, ad *computepb.AttachedDisk) *attachment {
	a := &attachment{inst: i, disk: d, device: ad.GetDeviceName(), mode: ad.GetMode()}
	if a.mode == "" {
		a.mode = readWrite
	}
	for n := len(i.attachments); a.device == ""; n++ {
		if name := fmt.Sprintf("persistent-disk-%d", n); !i.hasDevice(name) {
			a.device = name
		}
	}
	a.pb = edited(ad, func(m *computepb.AttachedDisk) {
		m.Kind, m.Type, m.Source = proto.String("compute#attachedDisk"), proto.String("PERSISTENT"), proto.String(d.link().url())
		m.DeviceName, m.Mode, m.DiskSizeGb = &a.device, &a.mode, d.pb.SizeGb
		m.Index = proto.Int32(int32(len(i.attachments)))
		m.AutoDelete, m.Boot = proto.Bool(ad.GetAutoDelete()), proto.Bool(ad.GetBoot())
		if m.Interface == nil {
			m.Interface = proto.String("SCSI")
		}
	})
	i.attachments = append(i.attachments, a)
	d.attachments = append(d.attachments, a)
	return a
}

func (i *instance) hasDevice(name string) bool {
	return slices.ContainsFunc(i.attachments, func(a *attachment) bool { return a.device == name })
}

// attached makes the attachment visible.
func (s *Server) attached(a *attachment) {
	a.state, a.since, a.disk.lastAttach = attached, s.present(), s.present()
	a.inst.pb = edited(a.inst.pb, func(m *computepb.Instance) { m.Disks = append(m.Disks, a.pb) })
	a.disk.pb = edited(a.disk.pb, func(m *computepb.Disk) {
		m.Users, m.LastAttachTimestamp = append(m.Users, a.inst.link().url()), s.now()
	})
}

// detached takes the attachment away on both sides.
func (s *Server) detached(a *attachment) {
	was := a.state
	drop := func(list []*attachment) []*attachment {
		return slices.DeleteFunc(list, func(b *attachment) bool { return a == b })
	}
	a.inst.attachments, a.disk.attachments = drop(a.inst.attachments), drop(a.disk.attachments)
	if was == attaching {
		return
	}
	user := a.inst.link().url()
	a.inst.pb = edited(a.inst.pb, func(m *computepb.Instance) {
		m.Disks = slices.DeleteFunc(m.Disks, func(ad *computepb.AttachedDisk) bool { return ad.GetDeviceName() == a.device })
	})
	a.disk.pb = edited(a.disk.pb, func(m *computepb.Disk) {
		a.disk.lastDetach = s.present()
		m.Users = slices.DeleteFunc(m.Users, func(u string) bool { return u == user })
		m.LastDetachTimestamp = s.now()
	})
}

func (s *Server) attachDisk(c *call) (*change, error) {
	i, err := s.findInstance(c)
	if err != nil {
		return nil, err
	}
	ad := c.body.(*computepb.AttachedDisk)
	d, err := s.checkAttach(c, i, ad)
	if err != nil {
		return nil, err
	}
	ch := &change{kind: "attachDisk", target: i.link(), targetID: i.pb.GetId()}
	if ch.late = s.attachConflict(i, d, ad); ch.late != nil {
		return ch, nil
	}
	s.checkAttachment(i, d, ad)
	a := s.newAttachment(i, d, ad)
	ch.apply = func() *opError {
		if i.gone {
			return opNotFound(i.link().path())
		}
		s.attached(a)
		s.noticeDisks(i)
		return nil
	}
	ch.undo = func() {
		if !i.gone {
			s.detached(a)
		}
	}
	return ch, nil
}

// checkAttach is about what is refused at once.
func (s *Server) checkAttach(c *call, i *instance, ad *computepb.AttachedDisk) (*disk, error) {
	switch {
	case ad.GetInitializeParams() != nil:
		return nil, errInvalid("resource.initializeParams", "", "Cannot attach a disk that is to be created.")
	case ad.GetSource() == "":
		return nil, errRequired("resource.source")
	case ad.GetType() == "SCRATCH":
		return nil, errInvalid("resource.type", ad.GetType(), "Scratch disks cannot be attached to an existing instance.")
	case ad.GetForceAttach() || c.query.Get("forceAttach") == "true":
		return nil, errInvalid("forceAttach", true, "Force attach is supported for regional disks only.")
	}
	if ad.DeviceName != nil {
		if err := checkName("resource.deviceName", ad.GetDeviceName()); err != nil {
			return nil, err
		}
		if i.hasDevice(ad.GetDeviceName()) {
			return nil, errInvalid("resource.deviceName", ad.GetDeviceName(), "The device name is already used by another disk of the instance.")
		}
	}
	l, err := parseKind("resource.source", ad.GetSource(), c.project, "disks")
	if err != nil {
		return nil, err
	}
	if l.zone != c.zone || l.project != c.project {
		return nil, errInvalid("resource.source", ad.GetSource(), "Disk must be in the same zone as the instance.")
	}
	d, ok := s.disks.get(c.place(), l.name)
	if !ok {
		return nil, errNotFound(l.path())
	}
	return d, checkAttachable(i, d, ad.GetMode() == readOnly)
}

// checkAttachable is about the states and kinds of the disk and the instance.
func checkAttachable(i *instance, d *disk, asReader bool) error {
	t, _ := diskTypeOf(d.typeName)
	if d.pb.GetStatus() != statusReady {
		return errNotReady(d.link().path())
	}
	if asReader && t.readers == 0 {
		return errBadRequest("%s disk type cannot be attached in read-only mode.", d.typeName)
	}
	if !asReader && d.pb.GetAccessMode() == readOnlyMany {
		return errBadRequest("Disk with access mode READ_ONLY_MANY cannot be attached in read-write mode.")
	}
	if status := i.pb.GetStatus(); status != "RUNNING" && status != "TERMINATED" {
		return errNotReady(i.link().path())
	}
	return fitsMachine(d.typeName, i.machineType)
}

// attachConflict is about what fails within the operation.
func (s *Server) attachConflict(i *instance, d *disk, ad *computepb.AttachedDisk) *opError {
	asReader := ad.GetMode() == readOnly
	sharedWriters := d.pb.GetAccessMode() == readWriteMany
	for _, a := range d.attachments {
		lone := d.pb.GetAccessMode() == readWriteSingle // Hyperdisk that was not made ready for sharing
		if a.inst == i || lone || (!asReader || a.mode == readWrite) && !sharedWriters {
			return opInUse(d.link().path(), a.inst.link().path())
		}
	}
	if limit := s.readerLimit(d.typeName); asReader && len(d.attachments) >= limit {
		s.checkLimit(i, d, limit)
		return &opError{code: "LIMIT_EXCEEDED", status: http.StatusBadRequest,
			message: fmt.Sprintf("Exceeded limit '%d' for number of instances a disk can be attached to: %s", limit, d.link().path())}
	}
	if limit := s.opt.DiskLimit(i.machineType); len(i.attachments) >= limit {
		code := "LIMIT_EXCEEDED"
		if strings.HasPrefix(d.typeName, "hyperdisk") {
			code = "UNSUPPORTED_OPERATION"
		}
		return &opError{code: code, status: http.StatusBadRequest,
			message: fmt.Sprintf("Exceeded limit '%d' for number of disks of machine type %s: %s", limit, i.machineType, i.link().path())}
	}
	return nil
}

func (s *Server) detachDisk(c *call) (*change, error) {
	i, err := s.findInstance(c)
	if err != nil {
		return nil, err
	}
	device := c.query.Get("deviceName")
	if device == "" {
		return nil, errRequired("deviceName")
	}
	n := slices.IndexFunc(i.attachments, func(a *attachment) bool { return a.device == device && a.state != attaching })
	if n < 0 {
		return nil, &apiError{http.StatusBadRequest, "invalid",
			fmt.Sprintf("Invalid value for field 'disk': '%s'. No attached disk found with device name '%s'", device, device)}
	}
	a := i.attachments[n]
	switch {
	case a.state == detaching:
		return nil, errNotReady(i.link().path())
	case a.pb.GetBoot() && i.pb.GetStatus() == "RUNNING":
		return nil, errBadRequest("Cannot detach the boot disk of a running instance.")
	}
	s.checkDetachment(a)
	a.state = detaching
	return &change{kind: "detachDisk", target: i.link(), targetID: i.pb.GetId(),
		apply: func() *opError {
			if i.gone {
				return opNotFound(i.link().path())
			}
			s.detached(a)
			s.noticeDisks(i)
			return nil
		},
		undo: func() { a.state = attached },
	}, nil
}
