package imagetest

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// File is an entry and, if it is a regular file, its data. An entry whose Path
// starts with "unit:" begins the unit named after the colon.
type File struct {
	store.Entry
	Data string
}

// Dir is a directory.
func Dir(path string) File { return File{Entry: store.Entry{Path: path, Kind: store.Directory}} }

// Reg is a regular file.
func Reg(path, data string) File {
	return File{store.Entry{Path: path, Kind: store.Regular, Size: int64(len(data))}, data}
}

// Exe is an executable file.
func Exe(path, data string) File {
	f := Reg(path, data)
	f.Executable = true
	return f
}

// Link is a symlink.
func Link(path, target string) File {
	return File{Entry: store.Entry{Path: path, Kind: store.Symlink, Target: target}}
}

// Unit begins a unit.
func Unit(name string) File { return File{Entry: store.Entry{Path: "unit:" + name}} }

// Noise returns n bytes that do not compress, the same for the same seed.
func Noise(seed uint64, n int) string {
	var b strings.Builder
	b.Grow(n)
	_, err := io.CopyN(&b, rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}), int64(n))
	if err != nil {
		panic(err) // neither side of the copy can fail
	}
	return b.String()
}

// Text returns n bytes that compress to about a third, the same for the same
// seed.
func Text(seed uint64, n int) string {
	words := strings.Fields("store path closure reference narinfo substituter block group extent inode fragment superblock")
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteByte(" \n-/"[r.IntN(4)])
	}
	return b.String()[:n]
}

// Write adds the files to w, in pieces of odd sizes, and closes it.
func Write(w image.Writer, files []File) error {
	err := add(w, files)
	if closed := w.Close(); err == nil {
		err = closed
	}
	return err
}

func add(w image.Writer, files []File) error {
	for i := range files {
		f := &files[i]
		if unit, ok := strings.CutPrefix(f.Path, "unit:"); ok {
			if err := w.Begin(unit); err != nil {
				return err
			}
			continue
		}
		if err := w.Create(&f.Entry); err != nil {
			return err
		}
		for rest, piece := f.Data, 1; len(rest) > 0; piece = piece*3 + 1 {
			n := min(piece, len(rest))
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	return nil
}

// Want is what the kernel should show of the files in a mounted image: modes,
// owner and time are canonical.
func Want(files []File, uid, gid uint32) map[string]Facts {
	tree := map[string]Facts{".": {Mode: fs.ModeDir | 0o555}}
	for i := range files {
		f := &files[i]
		switch f.Kind {
		case store.Directory:
			tree[f.Path] = Facts{Mode: fs.ModeDir | 0o555}
		case store.Symlink:
			tree[f.Path] = Facts{Mode: fs.ModeSymlink | 0o777, Target: f.Target}
		case store.Regular:
			mode := fs.FileMode(0o444)
			if f.Executable {
				mode = 0o555
			}
			tree[f.Path] = Facts{Mode: mode, Size: f.Size, Digest: sha256.Sum256([]byte(f.Data))}
		}
	}
	for name, f := range tree {
		f.UID, f.GID, f.Mtime = uid, gid, int64(time.Second)
		tree[name] = f
	}
	return tree
}

// Trees are the trees that every image writer has to get right, by name. They
// suit block sizes of 4 KiB.
func Trees() map[string][]File {
	const block = 4096
	var wide []File
	wide = append(wide, Dir("wide"))
	for i := range 3000 {
		wide = append(wide, Reg(fmt.Sprintf("wide/%06d-%s", i*7919%3000, "name"), fmt.Sprint(i)))
	}
	long := strings.Repeat("n", 255)
	return map[string][]File{
		"empty": nil,
		"kinds": {
			Dir("d"), Reg("d/file", "contents"), Exe("d/exe", "#!/bin/sh\n"), Link("d/link", "../nowhere"), Dir("d/empty"),
			Reg("zero-length", ""), Exe("zero-length-exe", ""),
		},
		"sizes": {
			Reg("one", "1"), Reg("under", Noise(1, block-1)), Reg("block", Noise(2, block)), Reg("over", Noise(3, block+1)),
			Reg("many", Text(4, 37*block+11)), Reg("fragments", Text(5, block/2)), Reg("more", Text(6, block/2+1)),
		},
		"zeros": {
			Reg("short", strings.Repeat("\x00", 100)), Reg("blocks", strings.Repeat("\x00", 3*block)), Reg("ragged", strings.Repeat("\x00", 3*block+5)),
			Reg("front", strings.Repeat("\x00", 2*block)+Noise(7, block)), Reg("back", Noise(8, block)+strings.Repeat("\x00", 2*block)),
			Reg("middle", Noise(9, block)+strings.Repeat("\x00", 5*block)+Noise(10, 3)),
		},
		"duplicates": {
			Unit("a"), Dir("a"), Reg("a/x", Noise(11, 9*block+7)), Reg("a/y", Noise(11, 9*block+7)), Exe("a/z", Noise(11, 9*block+7)), Reg("a/small", "same"),
			Unit("b"), Dir("b"), Reg("b/small", "same"), Reg("b/x", Noise(11, 9*block+7)), Reg("b/own", Noise(12, 5*block)),
			Unit(""), Reg("later", "same"),
		},
		"names": {
			Dir(long), Reg(long+"/"+long, "deep"), Reg("-", "dash"), Reg("\xff\xfe", "not utf-8"), Reg(" \n\t", "spaces"), Reg("~", "tilde"), Reg("A", "upper"), Reg("a", "lower"),
		},
		"links": {
			Link("l1", "x"), Link("l59", strings.Repeat("a", 59)), Link("l60", strings.Repeat("b", 60)), Link("l4095", strings.Repeat("c", 4095)),
		},
		"unsorted": {Reg("z", "z"), Dir("m"), Reg("m/2", "2"), Reg("m/1", "1"), Reg("a", "a")},
		"wide":     wide,
	}
}
