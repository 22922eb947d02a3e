package verify

import (
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/read"
)

// manifestPath finds what the manifest, if there is one, says of a path; nil if
// nothing.
func (v *verifier) manifestPath(p store.Path) *image.ManifestPath {
	if v.Manifest == nil {
		return nil
	}
	paths := v.Manifest.Paths
	i, ok := slices.BinarySearchFunc(paths, p, func(m image.ManifestPath, p store.Path) int { return strings.Compare(string(m.Path), string(p)) })
	if !ok {
		return nil
	}
	return &paths[i]
}

// compareManifestPaths holds the manifest's list against disk and database.
func (v *verifier) compareManifestPaths() {
	for i := range v.names {
		if v.manifestPath(v.names[i].path) == nil {
			v.errorf(PathNotInManifest, string(v.names[i].path), "it is on the disk, but not in the manifest")
		}
	}
	for i := range v.Manifest.Paths {
		m := &v.Manifest.Paths[i]
		if !v.onDisk(m.Path) {
			v.errorf(ManifestPathNotOnDisk, string(m.Path), "it is in the manifest, but not on the disk")
		}
		v.compareManifestRow(m)
	}
}

// compareManifestRow holds an entry of the manifest against the database.
func (v *verifier) compareManifestRow(m *image.ManifestPath) {
	if v.db == nil {
		return
	}
	i := v.db.find(m.Path)
	if i < 0 {
		return
	}
	r := &v.db.rows[i]
	if m.NarHash != r.hash {
		v.errorf(ManifestNarHash, string(m.Path), "its NAR hash is %v in the manifest and %v in the database", m.NarHash, r.hash)
	}
	if m.NarSize != r.size {
		v.errorf(ManifestNarSize, string(m.Path), "its NAR size is %d in the manifest and %d in the database", m.NarSize, r.size)
	}
}

// compareTotals holds the manifest's counts against what was seen. It has
// nothing to say when a part of the image could not be read.
func (v *verifier) compareTotals() {
	if v.Manifest == nil {
		return
	}
	t := &v.Manifest.Totals
	dirs := v.dirs.Load() - 1 // no entry of the image stands for the root
	if v.info.Format == read.Ext4 {
		dirs-- // nor for lost+found
	}
	for _, c := range []struct {
		what      string
		says, has int64
	}{
		{"store paths", t.StorePaths, int64(len(v.names))},
		{"files", t.Files, v.files.Load()},
		{"directories", t.Directories, dirs},
		{"symlinks", t.Symlinks, v.symlinks.Load()},
		{"bytes in files", t.Bytes, v.bytes.Load()},
	} {
		if c.says != c.has {
			v.errorf(StaleFacts, "", "the manifest counts %d %s, the image has %d", c.says, c.what, c.has)
		}
	}
}

// compareInfo holds what the manifest says of the filesystem against it.
func (v *verifier) compareInfo() {
	m, i := v.Manifest, v.info
	if m.Image.Format != i.Format {
		v.errorf(StaleFacts, "", "the manifest says %s, but the image is %s", clip(m.Image.Format), i.Format)
	}
	if i.Format == read.Ext4 && m.Image.Label != i.Label && len(m.Image.Label) <= 16 {
		v.errorf(StaleFacts, "", "the label is %q in the manifest and %q in the image", m.Image.Label, i.Label)
	}
	if m.Options.BlockSize != 0 && int64(m.Options.BlockSize) != i.BlockSize {
		v.errorf(StaleFacts, "", "the block size is %d in the manifest and %d in the image", m.Options.BlockSize, i.BlockSize)
	}
	if name, _, _ := strings.Cut(m.Options.Compression, ":"); name != i.Compression && name != "" && name != "none" {
		v.errorf(StaleFacts, "", "the compression is %s in the manifest and %s in the image", clip(name), i.Compression)
	}
	if p := m.Image.Part; (p != nil) != i.Partitioned || (p != nil && p.Offset != i.Offset) {
		v.errorf(StaleFacts, "", "manifest and image do not agree on where the partition is")
	}
}
