package bundle

import (
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle/store"
)

// Order returns the release order: the paths in the order in which the given
// roots first need them. For each root in turn, that is the paths of its
// closure that have no place yet, sorted by path. It depends on nothing but the
// order of the roots and the references. Paths that no root needs have no place
// in it. A root that is not in the closure is an error.
//
// A release that adds versions, and gives the roots in the order of the last
// one with the new ones at the end, leaves what was there before where it was.
func (c *Closure) Order(roots []store.Path) ([]store.Path, error) {
	order := make([]store.Path, 0, len(c.nodes))
	w := c.newWalk()
	for _, root := range roots {
		i, ok := c.find(root)
		if !ok {
			return nil, fmt.Errorf("%s is not in the closure", root)
		}
		found := w.from(i)
		slices.Sort(found)
		for _, k := range found {
			order = append(order, c.nodes[k].path)
		}
	}
	return order, nil
}

// NeededBy returns the first of the roots whose closure has the path, and
// whether there is one. It is for messages: it takes a walk through the
// closure.
func (c *Closure) NeededBy(path store.Path, roots []store.Path) (store.Path, bool) {
	want, ok := c.find(path)
	if !ok {
		return "", false
	}
	w := c.newWalk()
	for _, root := range roots {
		if i, ok := c.find(root); ok {
			if w.from(i); w.seen[want] {
				return root, true
			}
		}
	}
	return "", false
}

// walk visits each path once.
type walk struct {
	c     *Closure
	seen  []bool
	found []uint32
}

func (c *Closure) newWalk() *walk { return &walk{c: c, seen: make([]bool, len(c.nodes))} }

// from returns what root needs that has not been seen yet. The result is valid
// until the next call.
func (w *walk) from(root uint32) []uint32 {
	w.found = w.found[:0]
	w.visit(root)
	for next := 0; next < len(w.found); next++ {
		for _, r := range w.c.references(w.found[next]) {
			w.visit(r)
		}
	}
	return w.found
}

func (w *walk) visit(i uint32) {
	if !w.seen[i] {
		w.seen[i] = true
		w.found = append(w.found, i)
	}
}

// checkCycles looks for a path that leads back to itself through others, depth
// first and without recursion, since chains may be as long as the closure.
func (c *Closure) checkCycles() error {
	type frame struct{ node, next uint32 }
	const (
		unseen = iota
		open   // on the stack
		done
	)
	state := make([]uint8, len(c.nodes))
	var stack []frame
	for start := range c.nodes {
		if state[start] != unseen {
			continue
		}
		state[start] = open
		stack = append(stack[:0], frame{node: uint32(start)})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			refs := c.references(top.node)
			if int(top.next) == len(refs) {
				state[top.node] = done
				stack = stack[:len(stack)-1]
				continue
			}
			r := refs[top.next]
			top.next++
			if state[r] == open && r != top.node {
				at := slices.IndexFunc(stack, func(f frame) bool { return f.node == r })
				var circle []store.Path
				for _, f := range stack[at:] {
					circle = append(circle, c.nodes[f.node].path)
				}
				return cycleError(circle)
			}
			if state[r] == unseen {
				state[r] = open
				stack = append(stack, frame{node: r})
			}
		}
	}
	return nil
}

// cycleError shows a circle, of a very long one the beginning.
func cycleError(circle []store.Path) error {
	const most = 16
	var b strings.Builder
	for i, p := range circle {
		if i == most {
			fmt.Fprintf(&b, "(%d more) -> ", len(circle)-most)
			break
		}
		b.WriteString(string(p) + " -> ")
	}
	return fmt.Errorf("%w: %s%s", ErrCycle, b.String(), circle[0])
}
