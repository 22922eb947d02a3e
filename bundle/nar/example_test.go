package nar_test

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

// An archive is written entry by entry, and read back in the same way.
func Example() {
	var archive bytes.Buffer
	w := nar.NewWriter(&archive)
	for _, e := range []store.Entry{
		{Path: "", Kind: store.Directory},
		{Path: "bin", Kind: store.Directory},
		{Path: "bin/hello", Kind: store.Regular, Size: 6, Executable: true},
		{Path: "hello", Kind: store.Symlink, Target: "bin/hello"},
	} {
		if err := w.Create(&e); err != nil {
			log.Fatal(err)
		}
		if e.Kind == store.Regular {
			if _, err := io.WriteString(w, "hello\n"); err != nil {
				log.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	r := nar.NewReader(&archive)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-9s %q %q %q\n", e.Kind, e.Path, e.Target, data)
	}
	// Output:
	// directory "" "" ""
	// directory "bin" "" ""
	// regular   "bin/hello" "" "hello\n"
	// symlink   "hello" "bin/hello" ""
}
