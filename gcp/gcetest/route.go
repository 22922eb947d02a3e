package gcetest

import (
	"net/http"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

// route is one method of the API. Exactly one of read, change and serve is set.
type route struct {
	verb, path string // the path below /compute/v1/projects/{project}/
	method     string // as in the discovery document: disks.insert
	group      Group
	params     []string // query parameters, beside the standard ones
	body       func() proto.Message
	read       func(*Server, *call) (proto.Message, error) // s.mu is held
	change     func(*Server, *call) (*change, error)       // s.mu is held
	serve      func(*Server, *call) (proto.Message, error) // s.mu is not held
}

// takesRequestID tells whether the method has that parameter at all.
func (r *route) takesRequestID() bool {
	for _, p := range r.params {
		if p == "requestId" {
			return true
		}
	}
	return false
}

var (
	listParams       = []string{"filter", "maxResults", "orderBy", "pageToken"}
	aggregatedParams = append([]string{"includeAllScopes", "serviceProjectNumber"}, listParams...)
	requestParams    = []string{"requestId"}
)

// routes is the API. Adding a method is adding a line.
func routes() []route {
	return append(append(imageRoutes(), diskRoutes()...), otherRoutes()...)
}

func imageRoutes() []route {
	newImage := func() proto.Message { return new(computepb.Image) }
	newSnapshot := func() proto.Message { return new(computepb.Snapshot) }
	globalLabels := func() proto.Message { return new(computepb.GlobalSetLabelsRequest) }
	return []route{
		{verb: "GET", path: "global/images", method: "images.list", group: Lists, params: listParams, read: (*Server).listImages},
		{verb: "GET", path: "global/images/{name}", method: "images.get", group: Reads, read: (*Server).getImage},
		{verb: "GET", path: "global/images/family/{name}", method: "images.getFromFamily", group: Reads, read: (*Server).getImageFromFamily},
		{verb: "POST", path: "global/images", method: "images.insert", group: Mutations, params: []string{"requestId", "forceCreate"}, body: newImage, change: (*Server).insertImage},
		{verb: "DELETE", path: "global/images/{name}", method: "images.delete", group: Mutations, params: requestParams, change: (*Server).deleteImage},
		{verb: "POST", path: "global/images/{name}/deprecate", method: "images.deprecate", group: Mutations, params: requestParams,
			body: func() proto.Message { return new(computepb.DeprecationStatus) }, change: (*Server).deprecateImage},
		{verb: "POST", path: "global/images/{name}/setLabels", method: "images.setLabels", group: Mutations, body: globalLabels, change: (*Server).setImageLabels},

		{verb: "GET", path: "global/snapshots", method: "snapshots.list", group: Lists, params: listParams, read: (*Server).listSnapshots},
		{verb: "GET", path: "global/snapshots/{name}", method: "snapshots.get", group: Reads, read: (*Server).getSnapshot},
		{verb: "POST", path: "global/snapshots", method: "snapshots.insert", group: Mutations, params: requestParams, body: newSnapshot, change: (*Server).insertSnapshot},
		{verb: "DELETE", path: "global/snapshots/{name}", method: "snapshots.delete", group: Mutations, params: requestParams, change: (*Server).deleteSnapshot},
		{verb: "POST", path: "global/snapshots/{name}/setLabels", method: "snapshots.setLabels", group: Mutations, body: globalLabels, change: (*Server).setSnapshotLabels},
	}
}

func diskRoutes() []route {
	newDisk := func() proto.Message { return new(computepb.Disk) }
	newAttached := func() proto.Message { return new(computepb.AttachedDisk) }
	return []route{
		{verb: "GET", path: "aggregated/disks", method: "disks.aggregatedList", group: Lists, params: aggregatedParams, read: (*Server).aggregateDisks},
		{verb: "GET", path: "zones/{zone}/disks", method: "disks.list", group: Lists, params: listParams, read: (*Server).listDisks},
		{verb: "GET", path: "zones/{zone}/disks/{name}", method: "disks.get", group: Reads, read: (*Server).getDisk},
		{verb: "POST", path: "zones/{zone}/disks", method: "disks.insert", group: Mutations, params: []string{"requestId", "sourceImage"}, body: newDisk, change: (*Server).insertDisk},
		{verb: "DELETE", path: "zones/{zone}/disks/{name}", method: "disks.delete", group: Mutations, params: requestParams, change: (*Server).deleteDisk},
		{verb: "PATCH", path: "zones/{zone}/disks/{name}", method: "disks.update", group: Mutations, params: []string{"requestId", "paths", "updateMask"}, body: newDisk, change: (*Server).updateDisk},
		{verb: "POST", path: "zones/{zone}/disks/{name}/createSnapshot", method: "disks.createSnapshot", group: Mutations, params: []string{"requestId", "guestFlush"},
			body: func() proto.Message { return new(computepb.Snapshot) }, change: (*Server).createSnapshot},
		{verb: "POST", path: "zones/{zone}/disks/{name}/setLabels", method: "disks.setLabels", group: Mutations, params: requestParams,
			body: func() proto.Message { return new(computepb.ZoneSetLabelsRequest) }, change: (*Server).setDiskLabels},

		{verb: "GET", path: "aggregated/instances", method: "instances.aggregatedList", group: Lists, params: aggregatedParams, read: (*Server).aggregateInstances},
		{verb: "GET", path: "zones/{zone}/instances", method: "instances.list", group: Lists, params: listParams, read: (*Server).listInstances},
		{verb: "GET", path: "zones/{zone}/instances/{name}", method: "instances.get", group: Reads, read: (*Server).getInstance},
		{verb: "POST", path: "zones/{zone}/instances/{name}/attachDisk", method: "instances.attachDisk", group: Mutations, params: []string{"requestId", "forceAttach"}, body: newAttached, change: (*Server).attachDisk},
		{verb: "POST", path: "zones/{zone}/instances/{name}/detachDisk", method: "instances.detachDisk", group: Mutations, params: []string{"requestId", "deviceName"}, change: (*Server).detachDisk},
		{verb: "GET", path: "zones/{zone}/instances/{name}/getGuestAttributes", method: "instances.getGuestAttributes", group: GuestReads, params: []string{"queryPath", "variableKey"}, read: (*Server).getGuestAttributes},
	}
}

func otherRoutes() []route {
	return []route{
		{verb: "GET", path: "global/instanceTemplates", method: "instanceTemplates.list", group: Lists, params: listParams, read: (*Server).listTemplates},
		{verb: "GET", path: "global/instanceTemplates/{name}", method: "instanceTemplates.get", group: Reads, read: (*Server).getTemplate},
		{verb: "GET", path: "aggregated/instanceTemplates", method: "instanceTemplates.aggregatedList", group: Lists, params: aggregatedParams, read: (*Server).aggregateTemplates},

		{verb: "GET", path: "zones", method: "zones.list", group: Lists, params: listParams, read: (*Server).listZones},
		{verb: "GET", path: "zones/{zone}", method: "zones.get", group: Reads, read: (*Server).getZone},

		{verb: "GET", path: "zones/{zone}/operations", method: "zoneOperations.list", group: Lists, params: listParams, read: (*Server).listOperations},
		{verb: "GET", path: "zones/{zone}/operations/{name}", method: "zoneOperations.get", group: OperationReads, read: (*Server).getOperation},
		{verb: "POST", path: "zones/{zone}/operations/{name}/wait", method: "zoneOperations.wait", group: OperationReads, serve: (*Server).waitOperation},
		{verb: "GET", path: "global/operations", method: "globalOperations.list", group: Lists, params: listParams, read: (*Server).listOperations},
		{verb: "GET", path: "global/operations/{name}", method: "globalOperations.get", group: OperationReads, read: (*Server).getOperation},
		{verb: "POST", path: "global/operations/{name}/wait", method: "globalOperations.wait", group: OperationReads, serve: (*Server).waitOperation},
	}
}

func (s *Server) newMux() *http.ServeMux {
	mux := http.NewServeMux()
	for _, r := range routes() {
		mux.HandleFunc(r.verb+" /compute/v1/projects/{project}/"+r.path, func(w http.ResponseWriter, req *http.Request) {
			s.serve(w, req, &r)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		failure := &apiError{http.StatusNotFound, "notFound", req.Method + " " + req.URL.Path + " is no method of this server"}
		failure.write(w)
	})
	return mux
}
