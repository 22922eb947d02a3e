package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/spf13/pflag"

	"bigdisk/gcp/fleet"
	"bigdisk/gcp/publish"
	"bigdisk/pipeline"
)

// releaseConfig is a release.yaml. configs/release.yaml explains each key.
type releaseConfig struct {
	// Directory holds images and journal.
	Directory string `yaml:"directory"`
	// Lock is the lock file; "" is the build's, else modules.json.
	Lock string `yaml:"lock"`
	// CheckLock checks it first, against the file of the revision Upstream if
	// that is not "".
	CheckLock bool   `yaml:"checkLock"`
	Upstream  string `yaml:"upstream"`
	// Build are the flags of bigdisk build.
	Build buildPart `yaml:"build"`
	// Format is ext4 or squashfs; "" is the build's, else ext4.
	Format string `yaml:"format"`
	// Base is baseLast or baseNone.
	Base string `yaml:"base"`
	// Keep is how many images stay besides the last release's.
	Keep int `yaml:"keep"`
	// Verify reads the image again before it is published.
	Verify bool `yaml:"verify"`
	// Fleet is the fleet's configuration.
	Fleet string `yaml:"fleet"`
	// Publish is "disk", "raw" or publishNone.
	Publish string `yaml:"publish"`
	// Source is how Compute Engine gets the image: sourceImport or sourceDisk.
	Source string `yaml:"source"`
	// Rollout moves hosts to what was published.
	Rollout bool `yaml:"rollout"`

	file  string        // it was read from
	flags *buildOptions // what Build comes to, paths as in the file that it is in
	build *buildOptions // the same with paths that can be opened
	fleet *fleet.Config // what Fleet holds; nil without one
}

// The values of base and of publish.
const (
	baseLast    = "last"
	baseNone    = "none"
	publishNone = "none"
)

// buildPart is the key build: a file of flags, or the flags.
type buildPart struct {
	file string
	node ast.Node
}

// UnmarshalYAML takes a file's name or a mapping.
func (p *buildPart) UnmarshalYAML(n ast.Node) error {
	switch n := n.(type) {
	case *ast.StringNode:
		p.file = n.Value
	case *ast.MappingNode, *ast.MappingValueNode:
		p.node = n
	default:
		return &yaml.SyntaxError{Message: "the value has to be a file of flags, or the flags", Token: n.GetToken()}
	}
	return nil
}

// loadRelease reads and checks a release.yaml, and the files that it names.
func loadRelease(file string) (*releaseConfig, error) {
	c := &releaseConfig{CheckLock: true, Base: baseLast, Keep: 3, Verify: true, Publish: string(publish.FormatDisk), Source: sourceImport, Rollout: true, file: file}
	node, err := parseConfig(file)
	if err != nil {
		return nil, c.wrong(err)
	}
	if node != nil {
		if err := decodeConfig(node, c); err != nil {
			return nil, c.wrong(err)
		}
	}
	if err := c.check(); err != nil {
		return nil, c.wrong(err)
	}
	dir := filepath.Dir(file)
	for _, p := range []*string{&c.Directory, &c.Lock, &c.Fleet} {
		*p = relativeTo(dir, *p)
	}
	if err := c.readBuild(dir); err != nil {
		return nil, err
	}
	if c.Fleet != "" {
		if c.fleet, err = loadFleet(c.Fleet); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// wrong says that the file is not right.
func (c *releaseConfig) wrong(err error) error {
	var inner usageError
	hint := "its keys are explained in configs/release.yaml"
	if errors.As(err, &inner) {
		return usageError{inner.err, hint}
	}
	return usageError{fmt.Errorf("configuration %s: %s", c.file, strings.TrimSpace(err.Error())), hint}
}

// check refuses values that there are not, or that do not go together.
func (c *releaseConfig) check() error {
	published := c.Publish != publishNone
	switch {
	case c.Directory == "":
		return errors.New("directory: there is none: name the directory for images and journal")
	case c.Base != baseLast && c.Base != baseNone:
		return fmt.Errorf("base: %q is neither %s nor %s", c.Base, baseLast, baseNone)
	case c.Format != "" && c.Format != pipeline.Ext4 && c.Format != pipeline.Squashfs:
		return fmt.Errorf("format: %q is neither %s nor %s", c.Format, pipeline.Ext4, pipeline.Squashfs)
	case c.Keep < 0:
		return fmt.Errorf("keep: %d is less than none", c.Keep)
	case published && c.Publish != string(publish.FormatDisk) && c.Publish != string(publish.FormatRaw):
		return fmt.Errorf("publish: %q is not disk, raw or none", c.Publish)
	case c.Source != sourceImport && c.Source != sourceDisk:
		return fmt.Errorf("source: %q is neither %s nor %s", c.Source, sourceImport, sourceDisk)
	case c.Source == sourceDisk && c.Publish != string(publish.FormatDisk):
		return fmt.Errorf("source: %s makes disks, and publish: %s does not", c.Source, c.Publish)
	case published && c.Fleet == "":
		return errors.New("fleet: there is none: name the fleet's configuration, or set publish: none and rollout: false")
	case c.Rollout && c.Publish != string(publish.FormatDisk):
		return fmt.Errorf("rollout: hosts are given disks, and publish: %s makes none: set rollout: false", c.Publish)
	case c.Upstream != "" && !c.CheckLock:
		return errors.New("upstream: the lock file is compared with it where checkLock is true")
	}
	return nil
}

// readBuild reads the build's flags, from their file or from dir's.
func (c *releaseConfig) readBuild(dir string) error {
	file := c.file
	read := func(o *buildOptions) error {
		o.AddFlags(pflag.NewFlagSet("", pflag.ContinueOnError))
		if c.Build.file != "" {
			return readConfig(file, o)
		}
		if c.Build.node == nil {
			return nil
		}
		if err := decodeConfig(c.Build.node, o); err != nil {
			return configError(file, err)
		}
		return nil
	}
	if c.Build.file != "" {
		file = relativeTo(dir, c.Build.file)
		dir = filepath.Dir(file)
	}
	c.flags, c.build = new(buildOptions), new(buildOptions)
	for _, o := range []*buildOptions{c.flags, c.build} {
		if err := read(o); err != nil {
			return err
		}
	}
	if err := c.checkBuild(); err != nil {
		return configError(file, usageError{err, "bigdisk release chooses it; see configs/release.yaml"})
	}
	if err := c.build.resolve(dir); err != nil {
		return configError(file, err)
	}
	return c.fillBuild(dir)
}

// checkBuild refuses flags that say what the release says.
func (c *releaseConfig) checkBuild() error {
	b := c.flags
	for name, given := range map[string]bool{
		"output": b.Output != "", "in-place": b.InPlace, "base": b.Base != "" && c.Base != baseNone, "json": b.JSON,
		"lock": b.Lock != "" && c.Lock != "", "format": b.Format != "" && c.Format != "" && b.Format != c.Format,
	} {
		if given {
			return fmt.Errorf("leave %s out of the build's flags", name)
		}
	}
	return nil
}

// fillBuild puts what the release says, and its defaults, into the build's
// options. dir is what the build's paths are relative to.
func (c *releaseConfig) fillBuild(dir string) error {
	b := c.build
	if c.Format != "" {
		b.Format = c.Format
	}
	if b.Format == "" {
		b.Format = pipeline.Ext4
	}
	if c.Lock != "" {
		b.Lock = c.Lock
	}
	if b.Lock == "" {
		if lock := b.pipelineOptions().Lock; lock != "" {
			b.Lock = relativeTo(dir, lock)
		}
	}
	if b.Lock == "" && c.CheckLock {
		return c.wrong(errors.New("checkLock: the build is without a lock file: set checkLock: false"))
	}
	if c.Base == baseLast {
		b.BaseOptional = true
	}
	return nil
}

// suffix is that of images of the format.
func (c *releaseConfig) suffix() string {
	if c.build.Format == pipeline.Ext4 {
		return ".raw"
	}
	return ".sqsh"
}
