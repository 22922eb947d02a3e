package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bigdisk/image"
	"bigdisk/image/atomicfile"
)

// manifestsName is the directory with copies of manifests, in the service's.
const manifestsName = ".manifests"

// keptManifests is how many copies stay: those of the versions that may be
// attached at a time, and some more.
const keptManifests = 8

// Manifests are copies of manifests that come from far away, so that a disk can
// be mounted while what they come from cannot be reached. Each has a name, such
// as a URL, and a generation, which changes when the original does.
type Manifests struct{ dir string }

// NewManifests are those of a service on this host. Of the options, the service
// and the directories count.
func NewManifests(o Options) (*Manifests, error) {
	l, err := newLayout(o.fill().MountRoot, o.Service)
	return &Manifests{filepath.Join(l.dir, manifestsName)}, err
}

// of is what the file names of a manifest's copies begin with.
func (c *Manifests) of(name string) string {
	sum := sha256.Sum256([]byte(name))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:8])+"-")
}

func (c *Manifests) file(name string, generation int64) string {
	return fmt.Sprintf("%s%d.json", c.of(name), generation)
}

// Read returns the copy of a generation; nil if there is none that can be read.
func (c *Manifests) Read(name string, generation int64) *image.Manifest {
	m, err := image.ReadManifest(c.file(name, generation))
	if err != nil {
		return nil
	}
	return m
}

// Any returns the copy of the generation that was written last; nil if there is
// none that can be read.
func (c *Manifests) Any(name string) *image.Manifest {
	for _, file := range c.byAge() {
		if strings.HasPrefix(file, c.of(name)) {
			if m, err := image.ReadManifest(file); err == nil {
				return m
			}
		}
	}
	return nil
}

// Write decodes a manifest, and keeps a copy of it if there is room for one.
func (c *Manifests) Write(name string, generation int64, r io.Reader) (*image.Manifest, error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return image.DecodeManifest(r)
	}
	f, err := atomicfile.Create(c.file(name, generation))
	if err != nil {
		return image.DecodeManifest(r)
	}
	defer f.Discard()
	to := &mayFail{to: f}
	m, err := image.DecodeManifest(io.TeeReader(r, to))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if _, err := io.Copy(to, r); err != nil { // what a decoder has no need of
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if to.err == nil && f.Commit() == nil {
		c.prune()
	}
	return m, nil
}

// byAge lists the copies, the newest first.
func (c *Manifests) byAge() []string {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil
	}
	age := make(map[string]int64)
	var files []string
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && e.Name()[0] != '.' {
			file := filepath.Join(c.dir, e.Name())
			age[file], files = fi.ModTime().UnixNano(), append(files, file)
		}
	}
	slices.SortFunc(files, func(a, b string) int { return int(min(max(age[b]-age[a], -1), 1)) })
	return files
}

// prune takes the oldest copies away. What stays for a while does no harm.
func (c *Manifests) prune() {
	files := c.byAge()
	for _, file := range files[min(keptManifests, len(files)):] {
		_ = os.Remove(file)
	}
}

// mayFail writes until it cannot, and then nothing more.
type mayFail struct {
	to  io.Writer
	err error
}

// Write implements [io.Writer]. It never fails.
func (w *mayFail) Write(p []byte) (int, error) {
	if w.err == nil {
		_, w.err = w.to.Write(p)
	}
	return len(p), nil
}
