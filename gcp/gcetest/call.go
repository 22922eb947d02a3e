package gcetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const maxBody = 1 << 20 // bytes of a request's body

// call is one request on its way through the server.
type call struct {
	ctx     context.Context
	route   *route
	project string
	zone    string // empty where the path has none
	name    string // of the resource, from the path or from the body of an insert
	query   url.Values
	body    proto.Message
	raw     []byte // the body as it came
	id      string // requestId
	log     *Call
}

func (c *call) place() place { return place{c.project, c.zone} }

// link names a resource of the kind in the place of the call.
func (c *call) link(kind string) link { return link{c.project, c.zone, kind, c.name} }

// standardParams are taken by every method of Google's APIs.
var standardParams = []string{"$.xgafv", "$alt", "access_token", "alt", "callback", "fields", "key", "oauth_token",
	"prettyPrint", "quotaUser", "uploadType", "upload_protocol", "userIp"}

// serve is what happens to every request: read and checked, counted, perhaps
// disturbed by faults, performed, logged, answered.
func (s *Server) serve(w http.ResponseWriter, req *http.Request, r *route) {
	c := &call{ctx: req.Context(), route: r, project: req.PathValue("project"), zone: req.PathValue("zone"),
		name: req.PathValue("name"), query: req.URL.Query()}
	c.id = c.query.Get("requestId")
	badBody := c.readBody(req)
	f := s.arrive(c)
	if !s.pause(c.ctx, f.delay) {
		return
	}
	if f.before != nil {
		s.answer(w, c, nil, f.before)
		return
	}
	var reply proto.Message
	err := s.check(c)
	if err == nil {
		err = badBody
	}
	if err == nil {
		reply, err = s.perform(c, f)
	}
	if f.after != nil && err == nil {
		reply, err = nil, f.after
	}
	s.answer(w, c, reply, err)
}

// readBody takes the body apart into the message of the route.
func (c *call) readBody(req *http.Request) error {
	raw, err := io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	if err != nil {
		return errBadRequest("Cannot read the request: %v", err)
	}
	if len(raw) > maxBody {
		return &apiError{http.StatusRequestEntityTooLarge, "uploadTooLarge", "Request payload is too large"}
	}
	c.raw = raw
	if c.route.body == nil {
		if text := strings.TrimSpace(string(raw)); text != "" && text != "{}" {
			return errBadRequest("Invalid JSON payload received. Unexpected body.")
		}
		return nil
	}
	c.body = c.route.body()
	if len(raw) == 0 {
		return errRequired("resource")
	}
	if err := protojson.Unmarshal(raw, c.body); err != nil {
		return jsonError(err)
	}
	if c.name == "" {
		if named, ok := c.body.(interface{ GetName() string }); ok {
			c.name = named.GetName()
		}
	}
	return checkEnums("resource", c.body.ProtoReflect())
}

var unknownField = regexp.MustCompile(`unknown field "([^"]*)"`)

func jsonError(err error) error {
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return errBadRequest("Invalid JSON payload received. Unknown name \"%s\": Cannot find field.", m[1])
	}
	_, text, _ := strings.Cut(err.Error(), "(")
	return errBadRequest("Invalid JSON payload received. (%s", text)
}

// check is about what all methods share: project, zone and parameters.
func (s *Server) check(c *call) error {
	for name, values := range c.query {
		if !slices.Contains(c.route.params, name) && !slices.Contains(standardParams, name) {
			return errBadRequest("Invalid JSON payload received. Unknown name \"%s\": Cannot bind query parameter. "+
				"Field '%s' could not be found in request message.", name, name)
		}
		if len(values) > 1 && name != "paths" {
			return errBadRequest("Invalid JSON payload received. Repeated value for parameter '%s'.", name)
		}
	}
	if err := checkRequestID(c.id); err != nil {
		return err
	}
	if !projectPattern.MatchString(c.project) {
		return errInvalid("project", c.project, "Must be a match of a project ID.")
	}
	if len(s.opt.Projects) > 0 && !slices.Contains(s.opt.Projects, c.project) {
		return errNotFound("projects/" + c.project)
	}
	return s.checkZone(c)
}

func (s *Server) checkZone(c *call) error {
	if c.zone == "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := slices.BinarySearch(s.zones, c.zone); !ok {
		return errInvalid("zone", c.zone, "Unknown zone.")
	}
	if s.unreachable[c.zone] && !strings.HasPrefix(c.route.method, "zones.") {
		return &apiError{http.StatusServiceUnavailable, "backendError", fmt.Sprintf("Zone %s is unreachable", c.zone)}
	}
	return nil
}

// perform does what the call asks for.
func (s *Server) perform(c *call, f fate) (proto.Message, error) {
	if c.route.serve != nil {
		return c.route.serve(s, c)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runDue()
	if c.route.read != nil {
		return c.route.read(s, c)
	}
	op, err := s.mutate(c, f)
	if err != nil {
		return nil, err
	}
	c.log.Operation = op.pb.GetName()
	return op.pb, nil
}

// answer writes the reply and completes the log entry of the call.
func (s *Server) answer(w http.ResponseWriter, c *call, reply proto.Message, err error) {
	var text []byte
	if err == nil {
		text, err = protojson.Marshal(reply)
	}
	failure := s.leave(c, err)
	if s.opt.ReplyLatency != nil && !s.pause(c.ctx, s.replyTime()) {
		return
	}
	switch {
	case failure == nil:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		_, _ = w.Write(append(text, '\n')) // a client that has gone is not our concern
	case failure.code == 0:
		reset(w)
	default:
		failure.write(w)
	}
}

// leave notes in the log how the call ended.
func (s *Server) leave(c *call, err error) *apiError {
	var failure *apiError
	if err != nil && !errors.As(err, &failure) {
		failure = &apiError{http.StatusInternalServerError, "internalError", err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c.log.Status = http.StatusOK
	if failure != nil {
		c.log.Status, c.log.Reason = failure.code, failure.reason
	}
	return failure
}
