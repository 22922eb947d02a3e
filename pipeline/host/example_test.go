package host_test

import (
	"fmt"
	"os"
	"path/filepath"

	"bigdisk/pipeline/host"
)

// The disks of a service, as they are attached to a machine. Here files stand
// for them.
func ExampleAttached() {
	dir, err := os.MkdirTemp("", "by-id")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"google-nix-v12", "google-boot"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			fmt.Println(err)
			return
		}
	}
	devices, err := host.Attached(dir, "nix")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range devices {
		fmt.Println(d.Name, "has version", d.Version)
	}
	// Output: google-nix-v12 has version v12
}
