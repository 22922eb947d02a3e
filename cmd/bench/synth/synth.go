// Package synth is a Nix store of any size that takes no room: what it holds
// follows from a number and a seed. A path's name says which one it is, so
// nothing is looked up, and its files are made when they are read.
//
// Of n paths the first [Store.Modules] are modules, single files. Every other
// path has five small files, in two directories: three that no other path has,
// one of 64 licences, and one that some ten paths share. Every path refers to
// ten others, if there are so many after it: two to which a tree leads from
// the modules, so that all of the store is in their closure, and eight at
// random. The files mention what is referred to, and nothing else.
package synth

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/nar"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
)

// Store is a synthetic store. It implements [source.Source].
type Store struct {
	// N is the number of store paths, at most 1<<32.
	N int
	// Seed makes another store of the same size.
	Seed uint64
}

var _ source.Source = Store{}

// pathsPerModule is how many paths there are to a module.
const pathsPerModule = 1000

// refs is how many references a path has.
const refs = 10

// Modules is the number of paths that are modules.
func (s Store) Modules() int { return (s.N + pathsPerModule - 1) / pathsPerModule }

// Lock lists the modules as a lock file does.
func (s Store) Lock() []lock.Entry {
	entries := make([]lock.Entry, s.Modules())
	for i := range entries {
		sum := sha256.Sum256(fmt.Appendf(nil, "commit %d %d", s.Seed, i))
		e := lock.Entry{ID: lock.ID(fmt.Sprintf("module-%d", i)), Path: s.Path(i)}
		copy(e.Commit[:], sum[:])
		e.Tag = lock.Tag{Version: 1, Date: 20240101, Short: e.Commit.String()[:lock.ShortLen]}
		entries[i] = e
	}
	return entries
}

// base32 has the digits of a store path's digest.
const base32 = "0123456789abcdfghijklmnpqrsvwxyz"

// numberDigits is how many digits of a digest say which path it is; they are
// the first, in a permutation that makes them look random.
const numberDigits = 12

// Path returns path i.
func (s Store) Path(i int) store.Path {
	v := permute(uint64(i) ^ s.Seed&numberMask)
	var digest [store.DigestLen]byte
	r := random{v}
	for k := range digest {
		if k < numberDigits {
			digest[k] = base32[v>>(5*k)&31]
		} else {
			digest[k] = base32[r.below(32)]
		}
	}
	return store.Path(store.Dir + "/" + string(digest[:]) + "-" + name(i, s.Modules()))
}

func name(i, modules int) string {
	if i < modules {
		return fmt.Sprintf("replit-module-module-%d", i)
	}
	return fmt.Sprintf("%s-%s-%d.%d", words[i%len(words)], words[i/7%len(words)], i%11, i%97)
}

// number returns which path it is.
func (s Store) number(path store.Path) (int, bool) {
	var v uint64
	for k, c := range []byte(path.Digest()[:numberDigits]) {
		v |= uint64(strings.IndexByte(base32, c)) << (5 * k)
	}
	i := unpermute(v) ^ s.Seed&numberMask
	return int(i), i < uint64(s.N) && s.Path(int(i)) == path
}

// references are what path i refers to, sorted.
func (s Store) references(i int) []store.Path {
	first := s.Modules() + 2*i // the tree: what each path refers to comes after it
	var to []int
	for k := first; k < min(first+2, s.N); k++ {
		to = append(to, k)
	}
	r := random{s.Seed ^ uint64(i)<<20}
	for after := s.N - i - 1; len(to) < min(refs, after); {
		if k := i + 1 + r.below(after); !slices.Contains(to, k) {
			to = append(to, k)
		}
	}
	paths := make([]store.Path, len(to))
	for k, j := range to {
		paths[k] = s.Path(j)
	}
	slices.Sort(paths)
	return paths
}

// info makes the info of path i, with the true hash of its tree.
func (s Store) info(i int) (*store.PathInfo, []file, error) {
	info := &store.PathInfo{Path: s.Path(i), References: s.references(i)}
	tree := s.tree(i, info)
	sum := counter{hash: sha256.New()}
	w := nar.NewWriter(&sum)
	for k := range tree {
		if err := w.Create(&tree[k].Entry); err != nil {
			return nil, nil, err
		}
		if _, err := w.Write(tree[k].data); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	sum.hash.Sum(info.NarHash[:0])
	info.NarSize = sum.n
	return info, tree, nil
}

// find returns the info and the tree of a path.
func (s Store) find(ctx context.Context, path store.Path) (*store.PathInfo, []file, error) {
	err := ctx.Err()
	if err == nil {
		i, ok := s.number(path)
		if ok {
			return s.info(i)
		}
		err = source.ErrNotFound
	}
	return nil, nil, &source.Error{Path: path, Source: s.String(), Err: err}
}

// String implements [source.Source].
func (s Store) String() string { return fmt.Sprintf("a synthetic store of %d paths", s.N) }

// Info implements [source.Source].
func (s Store) Info(ctx context.Context, path store.Path) (*store.PathInfo, error) {
	info, _, err := s.find(ctx, path)
	return info, err
}

// Open implements [source.Source].
func (s Store) Open(ctx context.Context, want *store.PathInfo) (store.Contents, error) {
	info, tree, err := s.find(ctx, want.Path)
	if err != nil {
		return nil, err
	}
	if info.NarHash != want.NarHash || info.NarSize != want.NarSize {
		return nil, &source.Error{Path: want.Path, Source: s.String(), Err: source.ErrMismatch}
	}
	return &contents{ctx: ctx, tree: tree}, nil
}

// Close implements [source.Source].
func (s Store) Close() error { return nil }
