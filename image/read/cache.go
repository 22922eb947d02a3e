package read

import (
	"container/list"
	"sync"
)

// cache keeps the values that were used last, by position, and lets one
// goroutine load what several want. Values must not be changed.
type cache[V any] struct {
	mu    sync.Mutex
	max   int
	slots map[int64]*list.Element
	order *list.List // of *slot[V], the one used last in front
	load  func(pos int64) (V, error)
}

type slot[V any] struct {
	pos  int64
	once sync.Once
	v    V
	err  error
}

// newCache returns a cache of at most n values.
func newCache[V any](n int, load func(pos int64) (V, error)) *cache[V] {
	return &cache[V]{max: n, slots: make(map[int64]*list.Element), order: list.New(), load: load}
}

// get returns the value at pos, loading it if it is not there.
func (c *cache[V]) get(pos int64) (V, error) {
	s := c.slot(pos)
	s.once.Do(func() {
		s.err = damaged("loading the block at %d failed before", pos) // what others see if load panics
		s.v, s.err = c.load(pos)
	})
	return s.v, s.err
}

func (c *cache[V]) slot(pos int64) *slot[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.slots[pos]; ok {
		c.order.MoveToFront(e)
		return e.Value.(*slot[V])
	}
	if c.order.Len() >= c.max {
		last := c.order.Back()
		delete(c.slots, last.Value.(*slot[V]).pos)
		c.order.Remove(last)
	}
	s := &slot[V]{pos: pos}
	c.slots[pos] = c.order.PushFront(s)
	return s
}
