package ext4_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"bigdisk/bundle/store"
	"bigdisk/image/ext4"
)

// An image with one file in one directory. It is as long as a gibibyte, and
// takes some kilobytes.
func Example() {
	f, err := os.CreateTemp("", "ext4")
	if err != nil {
		log.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()

	w, err := ext4.NewWriter(context.Background(), f, ext4.Options{Label: "example"})
	if err != nil {
		log.Fatal(err)
	}
	text := "hello\n"
	for _, err := range []error{
		w.Begin("greetings"),
		w.Create(&store.Entry{Path: "etc", Kind: store.Directory}),
		w.Create(&store.Entry{Path: "etc/motd", Kind: store.Regular, Size: int64(len(text))}),
	} {
		if err != nil {
			log.Fatal(err)
		}
	}
	if _, err := w.Write([]byte(text)); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	layout := w.Layout()
	fmt.Println(layout.Size, "bytes,", layout.Files, "file")
	fmt.Println(layout.Units[0].Name, "at", layout.Units[0].Extents)
	// Output:
	// 1073741824 bytes, 1 file
	// greetings at [{34603008 4096}]
}
