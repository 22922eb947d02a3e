package source

import (
	"sync"

	"bigdisk/bundle/store"
)

// pathCache remembers paths by their number in the database, since most
// references are to the same few of them. It forgets all when it is full.
type pathCache struct {
	mu    sync.RWMutex
	paths map[int64]store.Path
}

// maxPaths is how many paths a pathCache holds: some 12 MB.
const maxPaths = 1 << 17

func newPathCache() *pathCache { return &pathCache{paths: make(map[int64]store.Path)} }

func (c *pathCache) get(id int64) (store.Path, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	p, ok := c.paths[id]
	return p, ok
}

func (c *pathCache) put(id int64, p store.Path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.paths) >= maxPaths {
		clear(c.paths)
	}
	c.paths[id] = p
}
