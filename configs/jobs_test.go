// Package configs holds configurations to start from. Its tests hold them
// against the schemas of what reads them.
package configs

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"cloud.google.com/go/batch/apiv1/batchpb"
	"google.golang.org/protobuf/encoding/protojson"
	batchv1 "k8s.io/api/batch/v1"
	"sigs.k8s.io/yaml"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestKubernetesJob reads the job as the API server does, which refuses what it
// does not know, and wants as many pods as there are shards.
func TestKubernetesJob(t *testing.T) {
	var job batchv1.Job
	if err := yaml.UnmarshalStrict(read(t, "kubernetes/pack.yaml"), &job); err != nil {
		t.Fatal(err)
	}
	if job.APIVersion != "batch/v1" || job.Kind != "Job" {
		t.Errorf("it is a %s %s", job.APIVersion, job.Kind)
	}
	if m := job.Spec.CompletionMode; m == nil || *m != batchv1.IndexedCompletion {
		t.Errorf("completion mode %v gives pods no index", m)
	}
	want := "--shard=/" + strconv.Itoa(int(*job.Spec.Completions))
	if args := strings.Join(job.Spec.Template.Spec.Containers[0].Args, " "); !strings.HasPrefix(args, "pack ") || !strings.Contains(args, want) {
		t.Errorf("%d pods run %q", *job.Spec.Completions, args)
	}
}

// TestCloudBatchJob reads the job as the service does.
func TestCloudBatchJob(t *testing.T) {
	var job batchpb.Job
	if err := protojson.Unmarshal(read(t, "cloud-batch/pack.json"), &job); err != nil {
		t.Fatal(err)
	}
	group := job.TaskGroups[0]
	if group.TaskCount < 2 || group.TaskSpec.Runnables[0].GetContainer().Commands[0] != "pack" {
		t.Errorf("%d tasks run %v", group.TaskCount, group.TaskSpec.Runnables)
	}
}
