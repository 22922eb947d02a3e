package image

import (
	"cmp"
	"fmt"
	"slices"

	"bigdisk/bundle/store"
)

// checkVersion comes before all else: nothing can be said of another version.
func (m *Manifest) checkVersion() error {
	if m.Version != ManifestVersion {
		return fmt.Errorf("version %d: this bigdisk reads version %d", m.Version, ManifestVersion)
	}
	return nil
}

// validate checks what the types leave open. Its errors name the field.
func (m *Manifest) validate() error {
	if err := m.checkVersion(); err != nil {
		return err
	}
	if err := m.Image.validate(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if m.Options.BlockSize <= 0 {
		return fmt.Errorf("options: block size %d is not positive", m.Options.BlockSize)
	}
	if v := m.Verity; v != nil && (v.Offset <= 0 || v.Offset >= m.Image.Size) {
		return fmt.Errorf("verity: offset %d is not in the image's %d bytes", v.Offset, m.Image.Size)
	}
	if err := m.validatePaths(); err != nil {
		return err
	}
	if err := m.Totals.validate(len(m.Paths)); err != nil {
		return fmt.Errorf("totals: %w", err)
	}
	if err := m.validateRoots(); err != nil {
		return err
	}
	if sum := m.Digest(); sum != m.Image.SHA256 {
		return fmt.Errorf("image: sha256 is %s, but what the manifest says of the image makes %s", m.Image.SHA256, sum)
	}
	return nil
}

func (i *ManifestImage) validate() error {
	if i.Format != "squashfs" && i.Format != "ext4" {
		return fmt.Errorf("format %.40q is neither squashfs nor ext4", i.Format)
	}
	if i.Size <= 0 {
		return fmt.Errorf("size %d is not positive", i.Size)
	}
	if len(i.Metadata.Extents) == 0 {
		return fmt.Errorf("no metadata")
	}
	for _, x := range i.Metadata.Extents {
		if err := x.validate(i.Size); err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
	}
	if i.Part != nil {
		if err := i.Part.validate(i.Size); err != nil {
			return fmt.Errorf("partition: %w", err)
		}
	}
	return nil
}

// validate checks that the extent is not empty and lies within size bytes.
func (x Extent) validate(size int64) error {
	if x.Offset < 0 || x.Length <= 0 || x.Offset > size || x.Length > size-x.Offset {
		return fmt.Errorf("%d bytes at offset %d do not lie in the image's %d bytes", x.Length, x.Offset, size)
	}
	return nil
}

func (t *ManifestTotals) validate(paths int) error {
	if t.StorePaths != int64(paths) {
		return fmt.Errorf("storePaths is %d, but there are %d paths", t.StorePaths, paths)
	}
	for _, n := range []int64{t.Files, t.Directories, t.Symlinks, t.Bytes, t.UniqueBytes} {
		if n < 0 {
			return fmt.Errorf("%d is negative", n)
		}
	}
	return nil
}

func (m *Manifest) validatePaths() error {
	for i := range m.Paths {
		p := &m.Paths[i]
		if _, err := store.ParsePath(string(p.Path)); err != nil {
			return fmt.Errorf("paths: element %d: %w", i, err)
		}
		if i > 0 && p.Path <= m.Paths[i-1].Path {
			return fmt.Errorf("paths: element %d: %s is there twice or after a greater one", i, p.Path)
		}
		if p.NarHash.IsZero() {
			return fmt.Errorf("paths: %s: no narHash", p.Path)
		}
		if p.NarSize <= 0 || p.Files < 0 {
			return fmt.Errorf("paths: %s: a NAR of %d bytes with %d files", p.Path, p.NarSize, p.Files)
		}
		if int64(len(p.Sums)) > p.Files {
			return fmt.Errorf("paths: %s: %d sums of %d files", p.Path, len(p.Sums), p.Files)
		}
		if m.Image.Format == "ext4" && !equal(p.DataSum, p.Sums.Sum()) {
			return fmt.Errorf("paths: %s: blake3 is not that of its sums", p.Path)
		}
		for _, x := range p.Data {
			if err := x.validate(m.Image.Size); err != nil {
				return fmt.Errorf("paths: %s: data: %w", p.Path, err)
			}
		}
	}
	return m.validateOverlap()
}

func equal(a, b *DataSum) bool {
	return a == nil && b == nil || a != nil && b != nil && *a == *b
}

// validateOverlap checks that no byte of the image is two paths' own data.
func (m *Manifest) validateOverlap() error {
	type owned struct {
		Extent
		path int
	}
	var all []owned
	for i := range m.Paths {
		for _, x := range m.Paths[i].Data {
			all = append(all, owned{x, i})
		}
	}
	slices.SortFunc(all, func(a, b owned) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.path, b.path))
	})
	for i := 1; i < len(all); i++ {
		a, b := all[i-1], all[i]
		if a.Offset+a.Length > b.Offset {
			return fmt.Errorf("paths: the data of %s and of %s overlap at offset %d",
				m.Paths[a.path].Path, m.Paths[b.path].Path, b.Offset)
		}
	}
	return nil
}

// validateRoots checks that what was asked for is there, or missing with a
// reason.
func (m *Manifest) validateRoots() error {
	seen := make(map[string]bool, len(m.Modules)+len(m.Missing))
	once := func(list string, mod *ManifestModule) error {
		if mod.ID == "" || seen[mod.ID] {
			return fmt.Errorf("%s: %.200q is empty or there twice", list, mod.ID)
		}
		seen[mod.ID] = true
		return nil
	}
	for i := range m.Modules {
		mod := &m.Modules[i]
		if err := once("modules", mod); err != nil {
			return err
		}
		if !m.has(mod.Path) {
			return fmt.Errorf("modules: %.200q: %.300q is not among the paths", mod.ID, string(mod.Path))
		}
	}
	for i := range m.Missing {
		mod := &m.Missing[i]
		if err := once("missing", &mod.ManifestModule); err != nil {
			return err
		}
		if _, err := store.ParsePath(string(mod.Path)); err != nil {
			return fmt.Errorf("missing: %.200q: %w", mod.ID, err)
		}
	}
	for _, p := range m.Roots {
		if !m.has(p) {
			return fmt.Errorf("roots: %.300q is not among the paths", string(p))
		}
	}
	return nil
}

func (m *Manifest) has(p store.Path) bool {
	_, ok := slices.BinarySearchFunc(m.Paths, p, func(e ManifestPath, p store.Path) int { return cmp.Compare(e.Path, p) })
	return ok
}
