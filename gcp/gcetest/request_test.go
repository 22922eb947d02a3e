package gcetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"

	"bigdisk/gcp/gcetest"
)

const goodID = "?requestId=9f1c5a3e-0000-4000-8000-000000000001"

func TestRequestsAreReadStrictly(t *testing.T) {
	c := newCloud(t, gcetest.Options{Projects: []string{project}, Zones: []string{zone}})
	addDisk(c, "d", "pd-ssd")
	addVM(c, "vm")
	disks := "/compute/v1/projects/" + project + "/zones/" + zone + "/disks"
	for _, tt := range []struct {
		name, verb, path, body string
		code                   int
		reason, text           string
	}{
		{"fine", "POST", disks + goodID, `{"name":"x","sizeGb":"10"}`, 200, "", ""},
		{"unknown field", "POST", disks + goodID, `{"name":"y","sizeGB":10}`, 400, "badRequest", `Unknown name "sizeGB"`},
		{"unknown field deep", "POST", disks + goodID, `{"name":"y","params":{"x":1}}`, 400, "badRequest", `Unknown name "x"`},
		{"wrong type", "POST", disks + goodID, `{"name":"y","sizeGb":"ten"}`, 400, "badRequest", "Invalid JSON payload"},
		{"not JSON", "POST", disks + goodID, `name: y`, 400, "badRequest", "Invalid JSON payload"},
		{"no body", "POST", disks + goodID, ``, 400, "required", "resource"},
		{"unexpected body", "DELETE", disks + "/d" + goodID, `{"name":"y"}`, 400, "badRequest", "body"},
		{"large body", "POST", disks + goodID, `{"name":"` + strings.Repeat("y", 2<<20) + `"}`, 413, "uploadTooLarge", "too large"},
		{"unknown parameter", "POST", disks + goodID + "&force=true", `{"name":"y"}`, 400, "badRequest", `Unknown name "force"`},
		{"repeated parameter", "POST", disks + goodID + "&sourceImage=a&sourceImage=b", `{"name":"y"}`, 400, "badRequest", "Repeated"},
		{"parameter that was dropped", "GET", disks + "?returnPartialSuccess=true", "", 400, "badRequest", `Unknown name "returnPartialSuccess"`},
		{"standard parameter", "GET", disks + "/d?prettyPrint=false&alt=json", "", 200, "", ""},
		{"zero ID", "POST", disks + "?requestId=00000000-0000-0000-0000-000000000000", `{"name":"y"}`, 400, "invalid", "requestId"},
		{"bad ID", "POST", disks + "?requestId=1234", `{"name":"y"}`, 400, "invalid", "requestId"},
		{"bad project", "GET", strings.Replace(disks, project, "PROD", 1), "", 400, "invalid", "project"},
		{"other project", "GET", strings.Replace(disks, project, "prod-9", 1), "", 404, "notFound", "projects/prod-9"},
		{"unknown zone", "GET", strings.Replace(disks, zone, "mars-east1-a", 1), "", 400, "invalid", "Unknown zone"},
		{"unknown method", "GET", disks + "/d/explode", "", 404, "notFound", "no method"},
		{"enum of a part", "POST", disks + goodID, `{"name":"y","guestOsFeatures":[{"type":"FLYING"}]}`, 400, "invalid", "resource.guestOsFeatures.type"},
		{"disabled attributes", "GET", strings.Replace(disks, "disks", "instances/vm/getGuestAttributes", 1) + "?queryPath=x/", "", 412, "conditionNotMet", "disabled"},
		{"no device", "POST", strings.Replace(disks, "disks", "instances/vm/detachDisk", 1) + "?requestId=9f1c5a3e-0000-4000-8000-000000000002", "", 400, "required", "deviceName"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, body := send(t, tt.verb, c.URL()+tt.path, tt.body)
			if code != tt.code {
				t.Fatalf("got %d %s, want %d", code, body, tt.code)
			}
			if code == http.StatusOK {
				return
			}
			var e struct {
				Error struct {
					Code    int
					Message string
					Errors  []struct{ Reason, Domain, Message string }
				}
			}
			if err := json.Unmarshal(body, &e); err != nil {
				t.Fatal(err)
			}
			if e.Error.Code != tt.code || len(e.Error.Errors) != 1 || e.Error.Errors[0].Reason != tt.reason ||
				e.Error.Errors[0].Domain != "global" || !strings.Contains(e.Error.Message, tt.text) {
				t.Errorf("got %s", body)
			}
		})
	}
}

func send(t *testing.T, verb, url, body string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

func TestMissingRequestIDIsNoted(t *testing.T) {
	c := newCloud(t, gcetest.Options{})
	op, err := c.disks.Insert(c.ctx, &computepb.InsertDiskRequest{Project: project, Zone: zone, DiskResource: &computepb.Disk{Name: proto.String("d")}})
	c.succeed(zone, op, err)
	if v := c.Violations(); len(v) != 1 || !strings.Contains(v[0], "disks.insert d: no requestId") {
		t.Errorf("violations %v", v)
	}
}

func TestFixedAddress(t *testing.T) {
	s, err := gcetest.Start(gcetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(s.URL(), "http://")
	if _, err := gcetest.Start(gcetest.Options{Addr: addr}); err == nil {
		t.Errorf("two servers listen on %s", addr)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := gcetest.Start(gcetest.Options{Addr: addr})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}
