package release

import (
	"context"
	"fmt"
)

// Steps are what the stages do. A stage whose function is nil is left out; Build
// is needed, and Rollout needs Publish and Mark.
type Steps struct {
	// Check checks the lock file.
	Check func(ctx context.Context) (*Checked, error)
	// Build makes the image output, taking what it can from the image base, a
	// file, if that is not "". Neither image nor manifest may appear under its
	// name before it is whole.
	Build func(ctx context.Context, output, base string) (*Built, error)
	// Verify reads the image again.
	Verify func(ctx context.Context, image string) (*Verified, error)
	// Publish takes the image to the bucket and the zones, or goes on with that.
	// last is the version that the last release was published as; "" for none.
	Publish func(ctx context.Context, image, last string) (*Published, error)
	// Mark names the last thing that was decided about versions, as a rollout's
	// ID. It is asked before a run first begins to roll out, and what it says is
	// remembered: what was decided about the version after that was decided about
	// this run. (Times would not tell: others decide, by other clocks.)
	Mark func(ctx context.Context) (string, error)
	// Rollout moves hosts to the version, or goes on with that.
	Rollout func(ctx context.Context, version, mark string) (*RolledOut, error)
}

// Results are what the stages that are done came to; nil for the others.
type Results struct {
	Check   *Checked   `json:"check,omitempty"`
	Build   *Built     `json:"build,omitempty"`
	Verify  *Verified  `json:"verify,omitempty"`
	Publish *Published `json:"publish,omitempty"`
	Rollout *RolledOut `json:"rollout,omitempty"`
}

// Checked is a lock file that breaks no rule.
type Checked struct {
	Entries int `json:"entries"`
	// Upstream is the commit that it was compared with; "" for none.
	Upstream string `json:"upstream,omitempty"`
}

// String sums it up.
func (c *Checked) String() string {
	if c.Upstream == "" {
		return fmt.Sprintf("%d entries, not compared with an upstream file", c.Entries)
	}
	return fmt.Sprintf("%d entries, compared with %s", c.Entries, c.Upstream)
}

// Built is an image.
type Built struct {
	// SHA256 is the image's, in hexadecimal, and Size its length in bytes.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
	Label  string `json:"label"`
	Format string `json:"format"`
	// Modules and StorePaths count what is on it.
	Modules    int   `json:"modules"`
	StorePaths int64 `json:"storePaths"`
	// Missing counts the modules that were left out.
	Missing int `json:"missing,omitempty"`
	// Reused names the earlier run that made it of the same inputs, if one did.
	Reused string `json:"reused,omitempty"`
}

// String sums it up.
func (b *Built) String() string {
	text := fmt.Sprintf("%s, %.1f MiB, %d modules, %d store paths, sha256 %s", b.Format, float64(b.Size)/(1<<20), b.Modules, b.StorePaths, b.SHA256)
	if b.Missing > 0 {
		text += fmt.Sprintf(", %d modules left out", b.Missing)
	}
	if b.Reused != "" {
		text += ", as run " + b.Reused + " made it"
	}
	return text
}

// Verified is an image that is sound.
type Verified struct {
	StorePaths int64 `json:"storePaths"`
	Files      int64 `json:"files"`
	Warnings   int64 `json:"warnings"`
}

// String sums it up.
func (v *Verified) String() string {
	return fmt.Sprintf("%d store paths, %d files, %d warnings", v.StorePaths, v.Files, v.Warnings)
}

// Published is a version that is everywhere.
type Published struct {
	Version string `json:"version"`
	// Created and Found count objects, images and disks that were made, and
	// that were there.
	Created int `json:"created"`
	Found   int `json:"found"`
}

// String sums it up.
func (p *Published) String() string {
	return fmt.Sprintf("version %s, %d created, %d found", p.Version, p.Created, p.Found)
}

// RolledOut is a rollout that is done.
type RolledOut struct {
	ID    string `json:"id"`
	Hosts int    `json:"hosts"` // that have the version
	// Failed counts hosts that failed, fewer than the configuration allows.
	Failed int `json:"failed"`
}

// String sums it up.
func (r *RolledOut) String() string {
	return fmt.Sprintf("%d hosts, %d failed, rollout %s", r.Hosts, r.Failed, r.ID)
}
