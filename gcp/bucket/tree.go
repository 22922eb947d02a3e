package bucket

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"

	"bigdisk/gcp/internal/crc"
)

// piece is an object in the bucket that is part of the one to be made.
type piece struct {
	name       string
	generation int64
	size       int64
	sum        uint32
	note       string
}

// pieceOf is the piece that data makes.
func pieceOf(name string, data []byte, note string) piece {
	return piece{name: name, size: int64(len(data)), sum: crc32.Checksum(data, castagnoli), note: note}
}

// joined is what pieces in a row make, once composed.
func joined(name string, pieces []piece, note string) piece {
	whole := piece{name: name, note: note}
	for _, p := range pieces {
		whole.sum = crc.Join(crc32.Castagnoli, whole.sum, p.sum, p.size)
		whole.size += p.size
	}
	return whole
}

func notesOf(pieces []piece) []string {
	notes := make([]string, len(pieces))
	for i := range pieces {
		notes[i] = pieces[i].note
	}
	return notes
}

// node is a place in the tree: a part at level 0, and above up to fanIn nodes
// of the level below, composed.
type node struct{ level, index int }

func (n node) String() string { return fmt.Sprintf("%d-%08d", n.level, n.index) }

func (n node) parent() node { return node{n.level + 1, n.index / fanIn} }

// tree puts parts together as soon as all of a group are there, and deletes
// them then, so that there are never many in the bucket, or to keep in mind.
type tree struct {
	*upload
	top    int // the level whose nodes the object is made of
	there  map[string]Attrs
	mu     sync.Mutex
	groups map[node]*group
}

// group is what is there of a node's children.
type group struct {
	pieces  []piece
	missing int
}

// newTree finds what an earlier run left.
func (u *upload) newTree(ctx context.Context) (*tree, error) {
	t := &tree{upload: u, there: make(map[string]Attrs), groups: make(map[node]*group)}
	for t.width(t.top) > fanIn-1 { // one place is the tail's
		t.top++
	}
	list, err := u.client.List(ctx, u.bucket, u.partName(""))
	if err != nil {
		return nil, err
	}
	for _, a := range list {
		if a.Metadata[identityKey] == u.identity && noted(&a) {
			t.there[a.Name] = a
		}
	}
	return t, nil
}

// width is the number of nodes on a level.
func (t *tree) width(level int) int {
	n := t.content.Parts()
	for range level {
		n = (n + fanIn - 1) / fanIn
	}
	return n
}

// grow makes what is missing, and returns the topmost nodes in order.
func (t *tree) grow(ctx context.Context) ([]piece, error) {
	root := node{t.top + 1, 0}
	tops := t.group(root)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(t.opts.Parallel)
	err := t.children(ctx, root, work)
	if failed := work.Wait(); failed != nil {
		err = failed
	}
	return tops.pieces, err
}

// children visits the nodes below n.
func (t *tree) children(ctx context.Context, n node, work *errgroup.Group) error {
	first := n.index * fanIn
	for i := first; i < min(first+fanIn, t.width(n.level-1)); i++ {
		if err := t.visit(ctx, node{n.level - 1, i}, work); err != nil {
			return err
		}
	}
	return nil
}

// visit has a node made that is not there.
func (t *tree) visit(ctx context.Context, n node, work *errgroup.Group) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := t.partName(n.String())
	if a, ok := t.there[name]; ok {
		t.reuse(n)
		return t.add(ctx, n, piece{name, a.Generation, a.Size, a.CRC32C, a.Metadata[noteKey]})
	}
	if n.level > 0 {
		return t.children(ctx, n, work)
	}
	work.Go(func() error { // waits while there are enough under way
		p, err := t.part(ctx, n)
		if err != nil {
			return fmt.Errorf("part %d: %w", n.index, err)
		}
		return t.add(ctx, n, p)
	})
	return nil
}

// reuse counts the parts below a node as found.
func (t *tree) reuse(n node) {
	first, last := n.index, n.index+1
	for range n.level {
		first, last = first*fanIn, last*fanIn
	}
	last = min(last, t.content.Parts())
	t.mu.Lock()
	t.result.Reused += last - first
	t.mu.Unlock()
	for i := first; i < last; i++ {
		t.reported.part(t.upload, i)
	}
}

// part makes and sends a part.
func (t *tree) part(ctx context.Context, n node) (piece, error) {
	buf := <-t.buffers // there is one for each of those under way
	defer func() { t.buffers <- buf }()
	select {
	case t.makers <- struct{}{}:
	case <-ctx.Done():
		return piece{}, ctx.Err()
	}
	data, note, err := t.content.Part(ctx, n.index, buf)
	<-t.makers
	if err != nil {
		return piece{}, err
	}
	buf = data
	p, err := t.send(ctx, t.partName(n.String()), data, note)
	if err == nil {
		t.reported.part(t.upload, n.index)
	}
	return p, err
}

// add notes that a node is there, and composes the one above if it was the last
// one missing.
func (t *tree) add(ctx context.Context, n node, p piece) error {
	for {
		above := n.parent()
		g := t.group(above)
		t.mu.Lock()
		g.pieces[n.index%fanIn] = p
		g.missing--
		complete := g.missing == 0
		if complete {
			delete(t.groups, above)
		}
		t.mu.Unlock()
		if !complete || above.level > t.top {
			return nil
		}
		var err error
		if p, err = t.join(ctx, above, g.pieces); err != nil {
			return err
		}
		n = above
	}
}

// group returns a node's children, as far as they are there.
func (t *tree) group(n node) *group {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[n]
	if g == nil {
		size := min(fanIn, t.width(n.level-1)-n.index*fanIn)
		g = &group{pieces: make([]piece, size), missing: size}
		t.groups[n] = g
	}
	return g
}

// join composes a node of its children, and deletes them.
func (t *tree) join(ctx context.Context, n node, children []piece) (piece, error) {
	note, err := t.content.Join(notesOf(children))
	if err != nil {
		return piece{}, err
	}
	whole := joined(t.partName(n.String()), children, note)
	whole, err = t.settle(ctx, whole, func(meta map[string]string) (*Attrs, error) {
		return t.client.compose(ctx, t.bucket, whole.name, children, "application/octet-stream", meta)
	})
	if err != nil {
		return piece{}, err
	}
	for _, p := range children {
		if err := t.client.Delete(ctx, t.bucket, p.name, p.generation); err != nil {
			return piece{}, err
		}
	}
	return whole, nil
}

// send sends a part.
func (u *upload) send(ctx context.Context, name string, data []byte, note string) (piece, error) {
	p := pieceOf(name, data, note)
	return u.settle(ctx, p, func(meta map[string]string) (*Attrs, error) {
		attrs, err := u.client.put(ctx, u.bucket, name, data, 0, storage.ObjectAttrs{Metadata: meta, ContentType: "application/octet-stream"})
		if err == nil {
			atomic.AddInt64(&u.result.Sent, p.size)
		}
		return attrs, err
	})
}

// settle makes a piece with write. If there is one already, it is used if it is
// what it should be, as when a reply was lost; else it is in the way.
func (u *upload) settle(ctx context.Context, p piece, write func(meta map[string]string) (*Attrs, error)) (piece, error) {
	meta := u.metadata(p, nil)
	attrs, err := write(meta)
	if errors.Is(err, ErrPrecondition) || errors.Is(err, errPartsGone) {
		attrs, err = u.adopt(ctx, p, err, func() (*Attrs, error) { return write(meta) })
	}
	if err != nil {
		return p, err
	}
	if err := u.intact(attrs, p); err != nil {
		return p, errors.Join(err, u.client.Delete(ctx, u.bucket, p.name, attrs.Generation))
	}
	p.generation = attrs.Generation
	return p, nil
}

// adopt looks at what a write ran into: the piece itself, something else, which
// makes room for another attempt, or nothing any more.
func (u *upload) adopt(ctx context.Context, p piece, failed error, again func() (*Attrs, error)) (*Attrs, error) {
	there, err := u.client.Attrs(ctx, u.bucket, p.name)
	switch {
	case errors.Is(err, ErrNotFound) && errors.Is(failed, errPartsGone):
		return nil, failed
	case errors.Is(err, ErrNotFound):
		return again()
	case err != nil:
		return nil, err
	case there.Metadata[identityKey] == u.identity && u.intact(there, p) == nil:
		return there, nil
	}
	if err := u.client.Delete(ctx, u.bucket, p.name, there.Generation); err != nil {
		return nil, err
	}
	return again()
}
