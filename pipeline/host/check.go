package host

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/read"
	"bigdisk/image/verify"
	"bigdisk/image/verity"
)

// ErrRefused is wrapped by errors about disks that are not what they should be.
var ErrRefused = errors.New("the disk is refused")

// mostSampled is the largest store path that is hashed for a sample, and the
// most metadata, in bytes: so that checking a disk takes seconds.
const mostSampled = 512 << 20

// modulesName is the lock file's copy in [bundle.EtcDir].
const modulesName = "modules.json"

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// checkDevice checks what can be seen without mounting: the filesystem's own
// structures, label, length, and the hash tree.
func (o *Options) checkDevice(ctx context.Context, device string, m *image.Manifest) (read.Info, error) {
	im, err := read.Open(device)
	if err != nil {
		return read.Info{}, refuse("%w", err)
	}
	defer im.Close()
	info := im.Info()
	if info.Offset+info.Length > info.Size {
		return info, refuse("its filesystem has %d bytes from %d on, and the disk ends at %d", info.Length, info.Offset, info.Size)
	}
	if err := o.checkLabel(info, m); err != nil {
		return info, err
	}
	if m != nil {
		if err := compareImage(info, &m.Image); err != nil {
			return info, err
		}
	}
	if err := o.checkTree(ctx, im, m); err != nil {
		return info, err
	}
	if err := o.checkMetadata(ctx, im, m); err != nil {
		return info, err
	}
	if o.Full {
		return info, fullCheck(ctx, device, m)
	}
	return info, nil
}

func (o *Options) checkLabel(info read.Info, m *image.Manifest) error {
	label, known := info.Label, info.Format == read.Ext4
	if !known && m != nil {
		label, known = m.Image.Label, true // squashfs has none
	}
	want := o.Label
	if want == "" && m != nil {
		want = m.Image.Label
	}
	switch {
	case want == "" || known && label == want:
		return nil
	case !known:
		return refuse("a squashfs has no label, so it takes the manifest to tell whether it is %q", want)
	}
	return refuse("its label is %q, not %q", label, want)
}

// compareImage holds a disk, which may be larger than its image, against the
// manifest.
func compareImage(info read.Info, m *image.ManifestImage) error {
	if info.Format != m.Format {
		return refuse("it has %s, but its manifest says %s", info.Format, m.Format)
	}
	if info.Size < m.Size {
		return refuse("it has %d bytes, but its manifest says %d", info.Size, m.Size)
	}
	var offset int64
	if m.Part != nil {
		offset = m.Part.Offset
	}
	if info.Offset != offset {
		return refuse("its filesystem starts at byte %d, but its manifest says %d", info.Offset, offset)
	}
	return nil
}

// checkTree holds blocks of the disk, chosen at random, against its hash tree,
// and that against the root hash, if one is known.
func (o *Options) checkTree(ctx context.Context, im *read.Image, m *image.Manifest) error {
	info, disk := im.Info(), im.Disk()
	protected := io.NewSectionReader(disk, info.Offset, info.Size-info.Offset)
	offset, root := (info.Length+verity.BlockSize-1)/verity.BlockSize*verity.BlockSize, o.RootHash
	if m != nil && m.Verity != nil {
		offset = m.Verity.Offset
		if root != nil && *root != m.Verity.RootHash {
			return refuse("its manifest says that its root hash is %s, not %s", m.Verity.RootHash, root)
		}
		root = &m.Verity.RootHash
	}
	if root == nil {
		return nil
	}
	t, err := verity.Read(protected, offset)
	if err != nil {
		return refuse("%w", err)
	}
	if m != nil && m.Verity != nil && (t.SaltHex() != m.Verity.Salt || t.UUIDString() != m.Verity.UUID) {
		return refuse("its hash tree has another salt or UUID than its manifest says")
	}
	t.RootHash = *root
	var blocks []int64
	for range o.Blocks {
		blocks = append(blocks, rand.Int64N(offset/verity.BlockSize))
	}
	if o.Full {
		err = verity.Verify(ctx, protected, t, 0)
	} else {
		err = verity.VerifyBlocks(ctx, protected, t, blocks)
	}
	if errors.Is(err, verity.ErrMismatch) {
		return refuse("%w", err)
	}
	return err
}

// checkMetadata holds all that is not store paths' data against its sum, unless
// there is so much of it that it would take long.
func (o *Options) checkMetadata(ctx context.Context, im *read.Image, m *image.Manifest) error {
	if m == nil || m.Image.Metadata.Bytes() > mostSampled {
		return nil
	}
	want := m.Image.Metadata
	got, err := image.HashExtents(ctx, im.Disk(), want.Extents, func(int64) {})
	if err != nil {
		return err
	}
	if got != want.SHA256 {
		return refuse("its metadata has the SHA-256 %s, but its manifest says %s", got, want.SHA256)
	}
	return nil
}

// fullCheck reads all of the disk.
func fullCheck(ctx context.Context, device string, m *image.Manifest) error {
	if m != nil && m.Image.Size > 0 {
		if fi, err := os.Stat(device); err == nil && fi.Mode().IsRegular() && fi.Size() != m.Image.Size {
			return refuse("it has %d bytes, but its manifest says %d", fi.Size(), m.Image.Size)
		}
	}
	r, err := verify.Verify(ctx, verify.Options{Image: device, Manifest: m})
	if err != nil {
		return err
	}
	if !r.OK() {
		return refuse("errors: %d, the first: %s", r.Errors, r.Findings[0])
	}
	return nil
}

// checkMounted checks the disk that is mounted at root as its users will see
// it: the database, what the manifest says is in it, the modules, and the
// contents of some store paths.
func (o *Options) checkMounted(ctx context.Context, root string, m *image.Manifest) error {
	db, err := openDatabase(ctx, root)
	if err != nil {
		return refused(ctx, err)
	}
	defer db.close()
	if err := db.check(); err != nil {
		return refused(ctx, err)
	}
	if err := checkModules(root, db, m); err != nil {
		return refused(ctx, err)
	}
	rows, err := db.sample(o.Sample, mostSampled)
	if err != nil {
		return refused(ctx, err)
	}
	if m != nil {
		if err := comparePaths(db, m, o.Sample); err != nil {
			return refused(ctx, err)
		}
	}
	if err := checkInside(root, strings.TrimPrefix(store.Dir, "/"), fs.ModeDir); err != nil {
		return refused(ctx, err)
	}
	for _, row := range rows {
		if err := checkContents(ctx, root, row); err != nil {
			return refused(ctx, err)
		}
	}
	return nil
}

// refused makes err one about the disk, unless ctx has ended.
func refused(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// comparePaths holds the database against the manifest's store paths: their
// number, and n of them.
func comparePaths(db *database, m *image.Manifest, n int) error {
	first, last, err := db.ids()
	if err != nil {
		return err
	}
	if count := int64(len(m.Paths)); last-first+1 != count && (count > 0 || last > 0) {
		return fmt.Errorf("its database has %d store paths, but its manifest %d", last-first+1, count)
	}
	for _, i := range rand.Perm(len(m.Paths))[:min(n, len(m.Paths))] {
		p := &m.Paths[i]
		row, err := db.find(p.Path)
		switch {
		case err != nil:
			return err
		case row == nil:
			return fmt.Errorf("its manifest has %s, and its database has not", p.Path)
		case row.hash != p.NarHash || row.size != p.NarSize:
			return fmt.Errorf("%s: its NAR hash is %s in the database, and %s in the manifest", p.Path, row.hash, p.NarHash)
		}
	}
	return nil
}

// module is an entry of modules.json.
type module struct {
	Commit string     `json:"commit"`
	Path   store.Path `json:"path"`
}

// checkModules holds modules.json against database and manifest.
func checkModules(root string, db *database, m *image.Manifest) error {
	name := path.Join(bundle.EtcDir, modulesName)
	data, err := readInside(root, name, bundle.MaxEtcFile)
	if errors.Is(err, fs.ErrNotExist) && (m == nil || len(m.Modules) == 0) {
		return nil // an image of store paths, made by others
	}
	if err != nil {
		return err
	}
	var modules map[string]module
	if err := json.Unmarshal(data, &modules); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for id, on := range modules {
		row, err := db.find(on.Path)
		if err != nil {
			return err
		}
		if row == nil {
			return fmt.Errorf("module %s: its database has no %s", id, on.Path)
		}
	}
	if m == nil {
		return nil
	}
	if len(m.Modules) != len(modules) {
		return fmt.Errorf("it has %d modules, but its manifest %d", len(modules), len(m.Modules))
	}
	for _, want := range m.Modules {
		if on, ok := modules[want.ID]; !ok || on.Path != want.Path || on.Commit != want.Commit {
			return fmt.Errorf("module %s is %q on it, but %s in its manifest", want.ID, on.Path, want.Path)
		}
	}
	return nil
}

// checkContents hashes a store path of the disk that is mounted at root.
func checkContents(ctx context.Context, root string, row *validPath) error {
	return checkFiles(ctx, filepath.Join(root, string(row.path)), row)
}

// checkFiles hashes what should be a store path.
func checkFiles(ctx context.Context, at string, row *validPath) error {
	h := newNarHash()
	if err := nar.Dump(ctx, h, at); err != nil {
		return fmt.Errorf("%s: %w", row.path, err)
	}
	if sum, size := h.sum(); sum != row.hash || size != row.size {
		return fmt.Errorf("%s: its NAR hashes to %s, but the database says %s", row.path, sum, row.hash)
	}
	return nil
}

// narHash hashes and counts what is written to it.
type narHash struct {
	hash hash.Hash
	n    int64
}

func newNarHash() *narHash { return &narHash{hash: sha256.New()} }

// Write implements [io.Writer].
func (h *narHash) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.hash.Write(p)
}

func (h *narHash) sum() (store.Hash, int64) { return store.Hash(h.hash.Sum(nil)), h.n }
