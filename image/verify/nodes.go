package verify

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"bigdisk/bundle/store"
	"bigdisk/image/read"
)

// owner is who files should belong to.
type owner struct {
	uid, gid uint32
	why      string
}

// setOwner takes the expected owner from the manifest. Without one it is the
// owner of the store path that comes first.
func (v *verifier) setOwner() error {
	if v.Manifest == nil {
		return nil
	}
	o := owner{why: "the manifest"}
	if _, err := fmt.Sscanf(v.Manifest.Options.Owner, "%d:%d", &o.uid, &o.gid); err != nil {
		v.errorf(StaleFacts, "", "the manifest says that the owner is %q, which is not UID:GID", clip(v.Manifest.Options.Owner))
		return nil
	}
	v.owner = &o
	return nil
}

// counts is what has been seen in the image so far, by all workers.
type counts struct {
	files, dirs, symlinks, bytes atomic.Int64
	limit                        atomic.Int64 // bytes that may yet be read

	mu    sync.Mutex
	pages map[uint32]*[1024]uint64 // directories entered: a bit for each inode number
	links map[uint32]*linkCount    // regular files with several names
}

// linkCount is how many names an inode says it has, and how many it has.
type linkCount struct {
	says, has uint32
	path      string
}

// count adds one node to the totals.
func (v *verifier) count(n *read.Node) {
	switch n.Kind {
	case store.Regular:
		v.files.Add(1)
		v.bytes.Add(n.Size)
	case store.Directory:
		v.dirs.Add(1)
	case store.Symlink:
		v.symlinks.Add(1)
	}
}

// enter notes a directory. One that is entered twice has two places in the
// tree, which a hostile image may use to make it endless.
func (v *verifier) enter(n *read.Node) error {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	const perPage = 1024 * 64
	if v.pages == nil {
		v.pages = make(map[uint32]*[1024]uint64)
	}
	page := v.pages[n.Ino/perPage]
	if page == nil {
		page = new([1024]uint64)
		v.pages[n.Ino/perPage] = page
	}
	word, bit := &page[n.Ino%perPage/64], uint64(1)<<(n.Ino%64)
	if *word&bit != 0 {
		return fmt.Errorf("%w: directory inode %d is in two places", read.ErrDamaged, n.Ino)
	}
	*word |= bit
	return nil
}

// spend takes n bytes off what may be read.
func (v *verifier) spend(ctx context.Context, n int) error {
	if v.limit.Add(-int64(n)) < 0 {
		return fmt.Errorf("%w: the image claims to hold more than %d bytes", read.ErrDamaged, v.MaxBytes)
	}
	return ctx.Err()
}

// noteLinks counts the names of a file that says it has several.
func (v *verifier) noteLinks(path string, n *read.Node) {
	if n.Kind != store.Regular || n.Links == 1 {
		return
	}
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	if v.links == nil {
		v.links = make(map[uint32]*linkCount)
	}
	l := v.links[n.Ino]
	if l == nil {
		l = &linkCount{says: n.Links, path: path}
		v.links[n.Ino] = l
	}
	l.has++
	l.path = min(l.path, path)
}

// checkLinks reports inodes whose link count is wrong.
func (v *verifier) checkLinks() {
	for ino, l := range v.links {
		if l.says != l.has {
			v.errorf(WrongLinks, l.path, "inode %d says it has %d names, and has %d", ino, l.says, l.has)
		}
	}
}

// checkStoreNode checks what Nix canonicalises in a store path: modes 0444 and
// 0555, time 1, one owner.
func (v *verifier) checkStoreNode(storePath, path string, n *read.Node) {
	full := storePath
	if path != "" {
		full += "/" + path
	}
	v.checkOwner(storePath, full, n)
	v.noteLinks(storePath, n)
	if n.Mtime != 1 || n.MtimeNsec != 0 {
		v.errorf(WrongTime, storePath, "%s was modified %d.%09d seconds after 1970, not 1: Nix sets all times to 1", full, n.Mtime, n.MtimeNsec)
	}
	switch n.Kind {
	case store.Directory:
		v.checkMode(storePath, full, n, 0o555, 0o555)
	case store.Regular:
		v.checkMode(storePath, full, n, 0o444, 0o555)
	case store.Symlink:
		v.checkMode(storePath, full, n, 0o777, 0o777)
		v.checkSymlink(storePath, full, n)
	default:
		v.errorf(WrongFileType, storePath, "%s is a device, FIFO or socket, which no store path holds", full)
	}
}

func (v *verifier) checkMode(storePath, full string, n *read.Node, one, other uint16) {
	if n.Mode == one || n.Mode == other {
		return
	}
	want := fmt.Sprintf("%04o", one)
	if one != other {
		want += fmt.Sprintf(" or %04o", other)
	}
	v.errorf(WrongMode, storePath, "%s has mode %04o, not %s", full, n.Mode, want)
}

func (v *verifier) checkOwner(storePath, full string, n *read.Node) {
	o := v.expectedOwner(full, n)
	if n.UID != o.uid || n.GID != o.gid {
		v.add(Finding{Kind: WrongOwner, Warning: v.Manifest == nil, Path: storePath, Detail: fmt.Sprintf("%s belongs to %d:%d, not to %d:%d as %s", full, n.UID, n.GID, o.uid, o.gid, o.why)})
	}
}

// expectedOwner returns the manifest's owner, or else the owner of the node
// that asks first.
func (v *verifier) expectedOwner(full string, n *read.Node) owner {
	v.counts.mu.Lock()
	defer v.counts.mu.Unlock()
	if v.owner == nil {
		v.owner = &owner{n.UID, n.GID, full}
	}
	return *v.owner
}

// checkSymlink looks at where a symlink points, as far as that can be told.
func (v *verifier) checkSymlink(storePath, full string, n *read.Node) {
	if len(n.Target) > 4095 || strings.IndexByte(n.Target, 0) >= 0 {
		v.errorf(BadSymlink, storePath, "%s has a target of %d bytes that no system call would take", full, len(n.Target))
		return
	}
	rest, ok := strings.CutPrefix(n.Target, store.Dir+"/")
	if !ok {
		return
	}
	base, _, _ := strings.Cut(rest, "/")
	if p, err := store.ParseBase(base); err == nil && !v.onDisk(p) {
		v.warnf(DanglingSymlink, storePath, "%s points to %s, which is not on the disk", full, p)
	}
}
