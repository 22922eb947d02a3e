package gcetest

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// image is what images.insert makes.
type image struct {
	pb    *computepb.Image
	users int // disks being made from it
}

func (i *image) message() proto.Message { return i.pb }

// The states of an image or a snapshot.
const (
	statusPending  = "PENDING"
	statusReady    = "READY"
	statusFailed   = "FAILED"
	statusDeleting = "DELETING"
)

// A storage location is a multi-region or a region.
var locationPattern = regexp.MustCompile(`^(us|eu|asia|[a-z]+-[a-z]+[0-9]+)$`)

var archivePattern = regexp.MustCompile(`^https://storage\.googleapis\.com/[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]/.+\.tar\.gz$`)

// AddImage puts a READY image into the project, as if it had been there before.
func (s *Server) AddImage(project string, pb *computepb.Image) {
	s.locked(func() {
		s.images.put(place{project, ""}, pb.GetName(), &image{pb: s.newImagePb(project, pb, statusReady)})
	})
}

func (s *Server) newImagePb(project string, pb *computepb.Image, status string) *computepb.Image {
	return edited(pb, func(m *computepb.Image) {
		m.Kind, m.Id, m.Status = proto.String("compute#image"), proto.Uint64(s.newID()), &status
		m.CreationTimestamp, m.LabelFingerprint = s.now(), proto.String(fingerprint(m.Labels))
		m.SelfLink = proto.String(link{project, "", "images", m.GetName()}.url())
		m.SourceType = proto.String("RAW")
		if m.DiskSizeGb == nil {
			m.DiskSizeGb = proto.Int64(1)
		}
		if len(m.StorageLocations) == 0 {
			m.StorageLocations = []string{"us"}
		}
	})
}

func (s *Server) insertImage(c *call) (*change, error) {
	pb := c.body.(*computepb.Image)
	source, err := s.checkImage(c, pb)
	if err != nil {
		return nil, err
	}
	self := c.link("images")
	if _, ok := s.images.get(c.place(), c.name); ok {
		return nil, errExists(self.path())
	}
	img := &image{pb: s.newImagePb(c.project, pb, statusPending)}
	if source.sizeGB > 0 && pb.DiskSizeGb == nil {
		img.pb.DiskSizeGb = proto.Int64(source.sizeGB) // nobody else has seen it yet
	}
	s.images.put(c.place(), c.name, img)
	ch := &change{kind: "insert", target: self, targetID: img.pb.GetId(), warnings: source.warnings, late: source.late}
	var info ImageInfo
	if url := pb.GetRawDisk().GetSource(); url != "" && s.opt.ImageSource != nil {
		ch.work = func() (failed *opError) { info, failed = s.importArchive(url); return failed }
	}
	source.hold(1)
	ch.apply = func() *opError {
		source.hold(-1)
		img.pb = edited(img.pb, func(m *computepb.Image) {
			m.Status = proto.String(statusReady)
			m.ArchiveSizeBytes = proto.Int64(max(info.ArchiveBytes, 1))
			if info.DiskSizeGB > m.GetDiskSizeGb() {
				m.DiskSizeGb = proto.Int64(info.DiskSizeGB)
			}
		})
		return nil
	}
	ch.undo = func() {
		source.hold(-1)
		if s.opt.KeepFailedImages {
			img.pb = edited(img.pb, func(m *computepb.Image) { m.Status = proto.String(statusFailed) })
			return
		}
		s.images.remove(c.place(), c.name)
	}
	return ch, nil
}

func (s *Server) importArchive(url string) (ImageInfo, *opError) {
	info, err := s.opt.ImageSource(s.ctx, url)
	if err != nil {
		return info, &opError{code: "INVALID_IMAGE_TAR", status: http.StatusBadRequest,
			message: fmt.Sprintf("The tar archive is not a valid image. %v", err)}
	}
	return info, nil
}

// checkImage validates the body of images.insert and finds its source.
func (s *Server) checkImage(c *call, pb *computepb.Image) (origin, error) {
	if err := checkName("resource.name", pb.GetName()); err != nil {
		return origin{}, err
	}
	if err := checkLabels(pb.Labels); err != nil {
		return origin{}, err
	}
	if pb.Family != nil {
		if err := checkName("resource.family", pb.GetFamily()); err != nil {
			return origin{}, err
		}
	}
	if len(pb.StorageLocations) > 1 {
		return origin{}, errInvalid("resource.storageLocations", pb.StorageLocations, "Only one storage location is allowed.")
	}
	for _, l := range pb.StorageLocations {
		if !locationPattern.MatchString(l) {
			return origin{}, errInvalid("resource.storageLocations[0]", l, "The location is neither a region nor a multi-region.")
		}
	}
	if pb.DiskSizeGb != nil && pb.GetDiskSizeGb() < 1 {
		return origin{}, errInvalid("resource.diskSizeGb", pb.GetDiskSizeGb(), "Must be greater than zero.")
	}
	return s.imageSource(c, pb)
}

// imageSource checks that an image has exactly one source and that it can be used.
func (s *Server) imageSource(c *call, pb *computepb.Image) (origin, error) {
	n := 0
	for _, given := range []bool{pb.GetRawDisk() != nil, pb.GetSourceDisk() != "", pb.GetSourceImage() != "", pb.GetSourceSnapshot() != ""} {
		if given {
			n++
		}
	}
	switch {
	case n != 1:
		return origin{}, errBadRequest("Must specify exactly one source for an image.")
	case pb.GetRawDisk() != nil:
		if src := pb.GetRawDisk().GetSource(); !archivePattern.MatchString(src) {
			return origin{}, errInvalid("resource.rawDisk.source", src,
				"Must be a URL of a Cloud Storage object: https://storage.googleapis.com/BUCKET/OBJECT.tar.gz")
		}
		return origin{}, nil
	case pb.GetSourceDisk() != "":
		return s.diskOrigin(c, "resource.sourceDisk", pb.GetSourceDisk(), c.query.Get("forceCreate") == "true")
	case pb.GetSourceImage() != "":
		return s.imageOrigin(c, "resource.sourceImage", pb.GetSourceImage())
	default:
		return s.snapshotOrigin(c, "resource.sourceSnapshot", pb.GetSourceSnapshot())
	}
}

func (s *Server) findImage(c *call) (*image, error) {
	img, ok := s.images.get(c.place(), c.name)
	if !ok {
		return nil, errNotFound(c.link("images").path())
	}
	return img, nil
}

func (s *Server) getImage(c *call) (proto.Message, error) {
	img, err := s.findImage(c)
	if err != nil {
		return nil, err
	}
	return img.pb, nil
}

// getImageFromFamily gives the newest image of the family that is in use.
func (s *Server) getImageFromFamily(c *call) (proto.Message, error) {
	if img := s.newestOf(c.project, c.name); img != nil {
		return img.pb, nil
	}
	return nil, errNotFound(link{c.project, "", "images/family", c.name}.path())
}

func (s *Server) newestOf(project, family string) (newest *image) {
	for _, img := range s.images[place{project, ""}] {
		if state := img.pb.GetDeprecated().GetState(); img.pb.GetFamily() != family || state != "" && state != "ACTIVE" {
			continue
		}
		if img.pb.GetStatus() == statusReady && (newest == nil || img.pb.GetId() > newest.pb.GetId()) {
			newest = img
		}
	}
	return newest
}

func (s *Server) listImages(c *call) (proto.Message, error) {
	items, next, err := page(s, c, collect(s.images, []place{c.place()}))
	if err != nil {
		return nil, err
	}
	list := &computepb.ImageList{Kind: proto.String("compute#imageList"), NextPageToken: next}
	for _, it := range items {
		list.Items = append(list.Items, it.m.(*computepb.Image))
	}
	return list, nil
}

func (s *Server) deleteImage(c *call) (*change, error) {
	img, err := s.findImage(c)
	if err != nil {
		return nil, err
	}
	self, before := c.link("images"), img.pb.GetStatus()
	if img.users > 0 {
		return nil, errInUse(self.path(), "an operation")
	}
	if before == statusDeleting || before == statusPending {
		return nil, errNotReady(self.path())
	}
	setStatus := func(status string) {
		img.pb = edited(img.pb, func(m *computepb.Image) { m.Status = &status })
	}
	setStatus(statusDeleting)
	return &change{kind: "delete", target: self, targetID: img.pb.GetId(),
		apply: func() *opError {
			s.images.remove(c.place(), c.name)
			s.unsetSourceImage(img)
			return nil
		},
		undo: func() { setStatus(before) },
	}, nil
}

// unsetSourceImage does to disks what the deletion of their image does.
func (s *Server) unsetSourceImage(img *image) {
	id := strconv.FormatUint(img.pb.GetId(), 10)
	for _, zone := range s.disks {
		for _, d := range zone {
			if d.pb.GetSourceImageId() == id {
				d.pb = edited(d.pb, func(m *computepb.Disk) { m.SourceImage = nil })
			}
		}
	}
}

func (s *Server) deprecateImage(c *call) (*change, error) {
	img, err := s.findImage(c)
	if err != nil {
		return nil, err
	}
	status := c.body.(*computepb.DeprecationStatus)
	return &change{kind: "deprecate", target: c.link("images"), targetID: img.pb.GetId(), apply: func() *opError {
		img.pb = edited(img.pb, func(m *computepb.Image) {
			m.Deprecated = status
			if status.GetState() == "" || status.GetState() == "ACTIVE" {
				m.Deprecated = nil
			}
		})
		return nil
	}}, nil
}

func (s *Server) setImageLabels(c *call) (*change, error) {
	img, err := s.findImage(c)
	if err != nil {
		return nil, err
	}
	req := c.body.(*computepb.GlobalSetLabelsRequest)
	if err := checkNewLabels(req.Labels, req.GetLabelFingerprint(), img.pb.GetLabelFingerprint()); err != nil {
		return nil, err
	}
	return &change{kind: "setLabels", target: c.link("images"), targetID: img.pb.GetId(), apply: func() *opError {
		img.pb = edited(img.pb, func(m *computepb.Image) {
			m.Labels, m.LabelFingerprint = req.Labels, proto.String(fingerprint(req.Labels))
		})
		return nil
	}}, nil
}

// checkNewLabels refuses labels made for an older state.
func checkNewLabels(labels map[string]string, given, current string) error {
	if given != current {
		return errFingerprint()
	}
	return checkLabels(labels)
}
