package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"bigdisk/pipeline/release"
)

// options say to the release what the configuration and the flags say.
func (c *releaseConfig) options(opts *releaseOptions) (release.Options, error) {
	inputs, key, err := c.inputs(opts.Version)
	if err != nil {
		return release.Options{}, err
	}
	service := "bigdisk"
	if c.fleet != nil {
		service = c.fleet.Service
	}
	return release.Options{
		Dir: c.Directory, Service: service, Suffix: c.suffix(), Inputs: inputs, BuildKey: key,
		UseBase: c.Base == baseLast, Keep: c.Keep, Abandon: opts.Abandon, Steps: (&releaseSteps{c, opts}).steps(),
	}, nil
}

// inputs sums up what a release is made from, and what its image's bytes depend
// on.
func (c *releaseConfig) inputs(version string) (in release.Inputs, buildKey string, err error) {
	in = release.Inputs{Version: version, Program: program()}
	for _, f := range []struct {
		sum  *string
		file string
	}{{&in.Lock, c.build.Lock}, {&in.Fleet, c.Fleet}} {
		if f.file == "" {
			continue
		}
		if *f.sum, err = fileSum(f.file); err != nil {
			return in, "", err
		}
	}
	if in.Build, err = c.buildSum(); err != nil {
		return in, "", err
	}
	in.Stages = textSum(fmt.Sprintf("%#v", []any{c.CheckLock, c.Upstream, c.Base, c.Verify, c.Publish, c.Source, c.Rollout}))
	return in, textSum(fmt.Sprintf("%q", []string{in.Lock, in.Build, in.Program})), nil
}

// buildSum is a sum of the build's flags, as they are written down, so that it
// is the same wherever they are, and of the files that they name. Flags that
// the image does not depend on are left out.
func (c *releaseConfig) buildSum() (string, error) {
	flags := *c.flags
	flags.Format, flags.Lock = c.build.Format, ""
	flags.Base, flags.BaseOptional, flags.TrustBase, flags.BaseManifest = "", false, false, ""
	flags.Cache, flags.CacheSize, flags.KeepGoing, flags.Verify = "", 0, false, false
	flags.Jobs, flags.Progress = 0, ""
	sum := fmt.Sprintf("%#v", flags)
	for _, file := range []string{c.build.AutoUpgrade, c.build.RecommendUpgrade, c.build.ActiveModules, c.build.Mapping} {
		if file == "" {
			continue
		}
		s, err := fileSum(file)
		if err != nil {
			return "", err
		}
		sum += s
	}
	return textSum(sum), nil
}

func textSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// fileSum is a file's SHA-256.
func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// program is this program's version, by which a run tells that it is continued by
// another one.
func program() string {
	name, err := os.Executable()
	if err != nil {
		name = ""
	}
	return programOf(version(), name)
}

// programOf is the version of the program in a file: where it was built from
// changed files, or nobody knows from what, its sum belongs to it.
func programOf(version, file string) string {
	changed := strings.Contains(version, "(modified)") || strings.Contains(version, "+dirty")
	if known := strings.Contains(version, "revision ") || !strings.HasPrefix(version, "("); known && !changed {
		return version
	}
	sum, err := fileSum(file)
	if err != nil {
		return version
	}
	return version + ", sum " + sum[:16]
}
