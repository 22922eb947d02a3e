// Package treegen makes synthetic trees, small ones and ones too big for any
// disk, for the tests of the image writers: it streams them into a writer and
// holds what a kernel or a reader shows against them.
package treegen

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// Item is an entry of a tree, with its path relative to the image's root, and
// what it holds if it is a regular file.
type Item struct {
	store.Entry
	Data Data
}

// Tree is the entries of a tree in the order in which an [image.Writer] wants
// them. It can be gone through many times and is the same each time.
type Tree iter.Seq[Item]

// Dir, File, Exec and Symlink are items.
func Dir(path string) Item { return Item{Entry: store.Entry{Path: path, Kind: store.Directory}} }

// File is a regular file that is not executable.
func File(path string, data Data) Item {
	return Item{store.Entry{Path: path, Kind: store.Regular, Size: data.Size()}, data}
}

// Exec is a regular file that is.
func Exec(path string, data Data) Item {
	item := File(path, data)
	item.Executable = true
	return item
}

// Symlink is a symlink.
func Symlink(path, target string) Item {
	return Item{Entry: store.Entry{Path: path, Kind: store.Symlink, Target: target}}
}

// Of is the tree of the given items.
func Of(items ...Item) Tree {
	return func(yield func(Item) bool) {
		for _, item := range items {
			if !yield(item) {
				return
			}
		}
	}
}

// Join is the trees one after the other.
func Join(trees ...Tree) Tree {
	return func(yield func(Item) bool) {
		for _, tree := range trees {
			for item := range tree {
				if !yield(item) {
					return
				}
			}
		}
	}
}

// AddTo adds the tree to w. Each path below nix/store is a unit.
func (t Tree) AddTo(w image.Writer) error {
	for item := range t {
		if name, ok := strings.CutPrefix(item.Path, "nix/store/"); ok && !strings.Contains(name, "/") {
			if err := w.Begin(name); err != nil {
				return err
			}
		}
		if err := w.Create(&item.Entry); err != nil {
			return err
		}
		if _, err := item.Data.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

// Store is a Nix store of n paths: half of them small files, many of them
// equal, the others symlinks, and every hundredth a directory.
func Store(n int) Tree {
	return func(yield func(Item) bool) {
		if !yield(Dir("nix")) || !yield(Dir("nix/store")) {
			return
		}
		for i := range n {
			path := "nix/store/" + pathName(i)
			switch {
			case i%100 == 0:
				if !yield(Dir(path)) || !yield(Exec(path+"/run", Noise(100, uint64(i/1000)))) ||
					!yield(Symlink(path+"/self", "/"+path)) {
					return
				}
			case i%2 == 0:
				if !yield(File(path, Noise(int64(i%977), 1))) {
					return
				}
			default:
				if !yield(Symlink(path, "/nix/store/"+pathName(i-1))) {
					return
				}
			}
		}
	}
}

// pathName is a store path's base name; the names ascend with i.
func pathName(i int) string {
	const digits = "0123456789abcdfghijklmnpqrsvwxyz"
	var name [store.DigestLen]byte
	high, low := uint64(i)<<34|noise(3, uint64(i))>>30, noise(5, uint64(i))
	for k := range 13 {
		name[k] = digits[high>>(60-5*k+4)&31]
	}
	for k := 13; k < len(name); k++ {
		name[k] = digits[noise(low, uint64(k))>>40&31]
	}
	return fmt.Sprintf("%s-package-%d.%d", name[:], i%97, i%13)
}

// Subdirs is a directory of n directories.
func Subdirs(dir string, n int) Tree {
	return func(yield func(Item) bool) {
		if !yield(Dir(dir)) {
			return
		}
		for i := range n {
			if !yield(Dir(fmt.Sprintf("%s/%06d", dir, i))) {
				return
			}
		}
	}
}

// Duplicates is a directory of n files that all hold data.
func Duplicates(dir string, n int, data Data) Tree {
	return func(yield func(Item) bool) {
		if !yield(Dir(dir)) {
			return
		}
		for i := range n {
			if !yield(File(fmt.Sprintf("%s/%06d", dir, i), data)) {
				return
			}
		}
	}
}

// LongNames is a directory of n symlinks whose names have 255 bytes.
func LongNames(dir string, n int) Tree {
	return func(yield func(Item) bool) {
		if !yield(Dir(dir)) {
			return
		}
		for i := range n {
			name := fmt.Sprintf("%08d", i)
			name += strings.Repeat("ä", (255-len(name))/2) + "x"
			if !yield(Symlink(dir+"/"+name, name[:20])) {
				return
			}
		}
	}
}

// Symlinks is symlinks with targets around the sizes at which filesystems
// change how they keep them.
func Symlinks(dir string) Tree {
	items := []Item{Dir(dir)}
	for _, n := range []int{1, 58, 59, 60, 61, 255, 1023, 4094, 4095} {
		target := strings.Repeat("0123456789/abcdef", n/17+1)[:n]
		items = append(items, Symlink(fmt.Sprintf("%s/%04d", dir, n), target))
	}
	return Of(items...)
}

// Random is a small tree that depends on seed: some hundreds of entries, with
// names in no order, files equal to one another, and holes.
func Random(seed uint64) Tree {
	return func(yield func(Item) bool) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		left := 50 + rnd.IntN(400)
		randomDir(rnd, "", 0, &left, yield)
	}
}

func randomDir(rnd *rand.Rand, dir string, depth int, left *int, yield func(Item) bool) bool {
	seen := map[string]bool{"lost+found": true}
	for n := rnd.IntN(60) + 1; n > 0 && *left > 0; n-- {
		name := randomName(rnd)
		if seen[name] {
			continue
		}
		seen[name] = true
		*left--
		path := name
		if dir != "" {
			path = dir + "/" + name
		}
		if rnd.IntN(5) > 0 || depth > 20 {
			if !yield(randomLeaf(rnd, path)) {
				return false
			}
			continue
		}
		if !yield(Dir(path)) || !randomDir(rnd, path, depth+1, left, yield) {
			return false
		}
	}
	return true
}

func randomName(rnd *rand.Rand) string {
	n := 1 + rnd.IntN(12)
	if rnd.IntN(4) == 0 {
		n = 1 + rnd.IntN(255)
	}
	name := make([]byte, n)
	for i := range name {
		name[i] = byte(1 + rnd.IntN(255))
		if name[i] == '/' || name[i] == '.' {
			name[i] = '_'
		}
	}
	return string(name)
}

func randomLeaf(rnd *rand.Rand, path string) Item {
	if rnd.IntN(4) == 0 {
		return Symlink(path, strings.Repeat("t", 1+rnd.IntN(120)))
	}
	var data Data
	for range rnd.IntN(4) {
		size := rnd.Int64N(3 << uint(rnd.IntN(16)))
		if rnd.IntN(2) == 0 {
			size &^= 4095
		}
		data = append(data, Run{size, uint64(rnd.IntN(3))})
	}
	item := File(path, data)
	item.Executable = rnd.IntN(2) == 0
	return item
}
