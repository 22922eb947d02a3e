package publish

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"bigdisk/gcp/fleet"
)

// TestSelf: what is given stays, the rest is asked for.
func TestSelf(t *testing.T) {
	answers := map[string]string{
		"/computeMetadata/v1/project/project-id": "prod-9",
		"/computeMetadata/v1/instance/zone":      "projects/123/zones/us-east1-b",
		"/computeMetadata/v1/instance/name":      "me",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok || r.Header.Get("Metadata-Flavor") != "Google" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		_, _ = w.Write([]byte(answer))
	}))
	defer server.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	got, err := Self(t.Context(), fleet.Builder{Project: "prod-1", DiskType: "pd-ssd"})
	if want := (fleet.Builder{Project: "prod-1", Zone: "us-east1-b", Instance: "me", DiskType: "pd-ssd"}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	delete(answers, "/computeMetadata/v1/instance/name")
	if _, err := Self(t.Context(), fleet.Builder{Project: "prod-1", Zone: "us-east1-b"}); err == nil || !strings.Contains(err.Error(), "the builder's instance is not given") {
		t.Errorf("got %v", err)
	}
}
