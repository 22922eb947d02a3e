package image_test

import (
	"fmt"

	"bigdisk/image"
)

// A manifest tells where each store path's data lies in an image.
func ExampleReadManifest() {
	m, err := image.ReadManifest("testdata/manifest.json")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Image.Format, m.Image.Size, m.Modules[0].ID)
	for _, x := range m.Paths[0].Data {
		fmt.Println(m.Paths[0].Path.Name(), x.Offset, x.Length)
	}
	// Output:
	// squashfs 1048576 go-1.19:v1-20230522-c48c43c
	// glibc-2.36 8192 9000
	// glibc-2.36 20000 100
}
