package memory_test

import (
	"context"
	"fmt"
	"runtime/debug"

	"bigdisk/pipeline/memory"
)

func ExampleLimit() {
	ctx, done := context.WithCancel(context.Background())
	defer done()
	memory.Limit(ctx)
	fmt.Println(debug.SetMemoryLimit(-1)>>20, "MiB") // SetMemoryLimit(-1) only asks
	// Output: 1536 MiB
}
