package source

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"bigdisk/bundle/store"
)

// cacheInfoName is the object that makes a place a binary cache.
const cacheInfoName = "nix-cache-info"

// maxCacheInfo is the size in bytes of the largest that is read.
const maxCacheInfo = 64 << 10

// DefaultPriority is what Nix gives a cache that does not say.
const DefaultPriority = 50

// ErrCacheInfo is wrapped by every error of [ParseCacheInfo].
var ErrCacheInfo = errors.New("malformed nix-cache-info")

// CacheInfo is what a binary cache says of itself.
type CacheInfo struct {
	// StoreDir is the store directory that its paths are in; "" if not given.
	StoreDir string
	// Priority says how soon Nix asks it, of several: the lowest first. Here it
	// is the user's order that counts.
	Priority int
	// WantMassQuery says whether it wants to be asked for many paths.
	WantMassQuery bool
}

// ParseCacheInfo reads the file nix-cache-info as Nix's
// src/libstore/binary-cache-store.cc does: lines of "Name: value", of which
// unknown ones are passed over.
func ParseCacheInfo(text []byte) (*CacheInfo, error) {
	info := &CacheInfo{Priority: DefaultPriority}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("%w: line %d: %q has no colon", ErrCacheInfo, i+1, clip(line))
		}
		if err := info.set(name, strings.TrimSpace(value)); err != nil {
			return nil, fmt.Errorf("%w: line %d: %s: %w", ErrCacheInfo, i+1, clip(name), err)
		}
	}
	return info, nil
}

func (c *CacheInfo) set(name, value string) error {
	switch name {
	case "StoreDir":
		c.StoreDir = value
	case "WantMassQuery":
		c.WantMassQuery = value == "1"
	case "Priority":
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a whole number", clip(value))
		}
		c.Priority = n
	}
	return nil
}

// check says whether paths of that cache can be used here.
func (c *CacheInfo) check() error {
	if c.StoreDir != "" && c.StoreDir != store.Dir {
		return fmt.Errorf("its paths are for the store %q (StoreDir in nix-cache-info), only those for %s can be used", clip(c.StoreDir), store.Dir)
	}
	return nil
}
