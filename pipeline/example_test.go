package pipeline_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bigdisk/pipeline"
)

// An image of the newest version of each module of the example's lock file,
// from its binary cache.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	cache, err := filepath.Abs("../configs/example/cache")
	if err != nil {
		fmt.Println(err)
		return
	}
	result, err := pipeline.Build(context.Background(), pipeline.BuildOptions{
		Lock:        "../configs/example/modules.json",
		Latest:      1,
		From:        []string{"file://" + cache},
		TrustedKeys: []string{"example-1:3AlBt2BR9uPx7+vsB5x63kR6IhlDUpa8SmWCeaWsZHI="},
		Output:      filepath.Join(dir, "example.sqsh"),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Modules, "modules in", filepath.Base(result.Image), "with", filepath.Base(result.Manifest), "beside it")
	// Output: 2 modules in example.sqsh with example.sqsh.manifest.json beside it
}
