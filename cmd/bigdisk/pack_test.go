package main

import (
	"testing"

	"bigdisk/pipeline"
)

func TestParseShard(t *testing.T) {
	for _, c := range []struct {
		name, text string
		env        map[string]string
		want       pipeline.Shard
		bad        bool
	}{
		{name: "nothing", want: pipeline.Shard{Count: 1}},
		{name: "given", text: "2/5", want: pipeline.Shard{Index: 2, Count: 5}},
		{name: "given wins", text: "2/5", env: map[string]string{"BATCH_TASK_INDEX": "1", "BATCH_TASK_COUNT": "9"}, want: pipeline.Shard{Index: 2, Count: 5}},
		{name: "Kubernetes", text: "/4", env: map[string]string{"JOB_COMPLETION_INDEX": "3"}, want: pipeline.Shard{Index: 3, Count: 4}},
		{name: "Cloud Batch", env: map[string]string{"BATCH_TASK_INDEX": "0", "BATCH_TASK_COUNT": "9"}, want: pipeline.Shard{Index: 0, Count: 9}},
		{name: "Cloud Run", env: map[string]string{"CLOUD_RUN_TASK_INDEX": "8", "CLOUD_RUN_TASK_COUNT": "9"}, want: pipeline.Shard{Index: 8, Count: 9}},
		{name: "Kubernetes without a count", env: map[string]string{"JOB_COMPLETION_INDEX": "3"}, bad: true},
		{name: "no index", text: "/4", bad: true},
		{name: "past the end", text: "4/4", bad: true},
		{name: "negative", text: "-1/4", bad: true},
		{name: "none", text: "0/0", bad: true},
		{name: "words", text: "one/four", bad: true},
		{name: "three parts", text: "1/2/3", bad: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseShard(c.text, func(name string) string { return c.env[name] })
			if (err != nil) != c.bad || got != c.want {
				t.Errorf("%v, %v; want %v", got, err, c.want)
			}
		})
	}
}
