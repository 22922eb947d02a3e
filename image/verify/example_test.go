package verify_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"bigdisk/image/verify"
)

func ExampleVerify() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "disk.sqsh")
	broken := "hsqs" + strings.Repeat("\x00", 24) + "\x04" + strings.Repeat("\x00", 4096) // a superblock and no more
	if err := os.WriteFile(image, []byte(broken), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	m, err := verify.LoadManifest(image) // none beside it
	if err != nil {
		fmt.Println(err)
		return
	}
	r, err := verify.Verify(context.Background(), verify.Options{Image: image, Manifest: m})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.OK(), r.Findings[0].Kind)
	// Output: false unreadable
}
