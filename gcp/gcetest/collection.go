package gcetest

import (
	"google.golang.org/protobuf/proto"
)

// place is where resources live: a zone of a project, or the whole project when
// zone is empty.
type place struct{ project, zone string }

// collection holds the resources of one kind.
type collection[R any] map[place]map[string]R

func (c collection[R]) get(p place, name string) (R, bool) {
	r, ok := c[p][name]
	return r, ok
}

func (c collection[R]) put(p place, name string, r R) {
	if c[p] == nil {
		c[p] = map[string]R{}
	}
	c[p][name] = r
}

func (c collection[R]) remove(p place, name string) { delete(c[p], name) }

// edited gives a copy of m with the change made. Messages that the server holds
// are never changed in place, for replies still being written refer to them.
func edited[M proto.Message](m M, change func(M)) M {
	n := proto.Clone(m).(M)
	change(n)
	return n
}
