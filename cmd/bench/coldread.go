package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// coldReads is how many pages are read to measure one.
const coldReads = 400

// coldRead mounts an image, empties the page cache and reads pages of random
// files at random places. It returns the mean time of one read.
func coldRead(image string) (mean time.Duration, err error) {
	at, err := os.MkdirTemp("", "bigdisk-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.Remove(at)) }()
	if out, err := exec.Command("mount", "-o", "ro,loop", image, at).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("mount: %w: %s", err, out)
	}
	defer func() { err = errors.Join(err, exec.Command("umount", at).Run()) }()
	files, err := regularFiles(at)
	if err != nil {
		return 0, err
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return 0, fmt.Errorf("emptying the page cache: %w", err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	start := time.Now()
	for range coldReads {
		f := files[r.IntN(len(files))]
		if err := readPage(f.name, r.Int64N(f.size)); err != nil {
			return 0, err
		}
	}
	return time.Since(start) / coldReads, nil
}

type file struct {
	name string
	size int64
}

func regularFiles(root string) ([]file, error) {
	var files []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 {
			files = append(files, file{path, info.Size()})
		}
		return err
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: no files", root)
	}
	return files, err
}

func readPage(name string, at int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(make([]byte, 4096), at&^4095)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}
