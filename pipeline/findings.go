package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/environment"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/store"
	"bigdisk/image/storedb"
)

// maxDerivation is the largest derivation whose outputs are recorded, in bytes.
const maxDerivation = 64 << 20

// maxEnvironments bounds the environments of all modules of a disk, in bytes.
const maxEnvironments = 256 << 20

// findings are what is learnt from contents as they pass: what modules say
// about themselves, and the outputs of derivations.
type findings struct {
	modules map[store.Path]bundle.ModuleInfo
	// environments has the modules' files for /etc/nixmodules/env.
	environments map[store.Path][]byte
	envBytes     int64 // in environments
	drvs         []storedb.Output
	// complete is closed when all contents have passed: drvs may be read then.
	complete chan struct{}
}

func newFindings() *findings {
	return &findings{
		modules:      make(map[store.Path]bundle.ModuleInfo),
		environments: make(map[store.Path][]byte),
		complete:     make(chan struct{}),
	}
}

// watches tells whether there is something to learn from a path's contents.
func watches(plan *plan, path store.Path) bool { return path.IsDerivation() || plan.modules[path] }

// watch returns the contents themselves or, where there is something to learn
// from them, a *watchedFile.
func (f *findings) watch(plan *plan, path store.Path, c store.Contents) store.Contents {
	switch {
	case path.IsDerivation():
		return &watchedFile{Contents: c, most: maxDerivation}
	case plan.modules[path]:
		return &watchedFile{Contents: c, most: bundle.MaxModuleFile}
	}
	return c
}

// keep learns from contents that have passed.
func (f *findings) keep(plan *plan, path store.Path, c store.Contents) error {
	w, ok := c.(*watchedFile)
	if !ok {
		return nil
	}
	if plan.modules[path] {
		if err := f.keepModule(path, w); err != nil {
			return err
		}
	}
	if path.IsDerivation() && w.whole {
		outputs, err := storedb.ReadOutputs(path, &w.data)
		if err != nil {
			return err
		}
		f.drvs = append(f.drvs, outputs...)
	}
	return nil
}

// keepModule learns from a module.
func (f *findings) keepModule(path store.Path, w *watchedFile) error {
	env := environment.NoFile(path)
	if w.whole {
		f.modules[path] = bundle.ParseModuleInfo(w.data.Bytes())
		env = environment.New(path, w.data.Bytes())
	}
	text, err := env.Encode()
	if err != nil {
		return err
	}
	f.environments[path] = text
	if f.envBytes += int64(len(text)); f.envBytes > maxEnvironments {
		return fmt.Errorf("the environments of all modules take over %d bytes", maxEnvironments)
	}
	return nil
}

// outputs lists those of all derivations for the database, which asks for them
// last: it waits until all contents have passed. nil if there are none.
func (f *findings) outputs(ctx context.Context, plan *plan) iter.Seq2[storedb.Output, error] {
	if !slices.ContainsFunc(plan.order, store.Path.IsDerivation) {
		return nil
	}
	return func(yield func(storedb.Output, error) bool) {
		select {
		case <-f.complete:
		case <-ctx.Done():
			yield(storedb.Output{}, context.Cause(ctx))
			return
		}
		slices.SortFunc(f.drvs, func(a, b storedb.Output) int {
			return strings.Compare(string(a.Drv)+"\x00"+a.Name, string(b.Drv)+"\x00"+b.Name)
		})
		for _, o := range f.drvs {
			if !yield(o, nil) {
				return
			}
		}
	}
}

// watchedFile keeps the bytes of contents that are a single file.
type watchedFile struct {
	store.Contents
	most  int64
	data  bytes.Buffer
	whole bool // all of the file's bytes are to be in data
}

// Next passes entries on.
func (w *watchedFile) Next() (*store.Entry, error) {
	e, err := w.Contents.Next()
	if err == nil && e.Path == "" && e.Kind == store.Regular && e.Size <= w.most {
		w.whole = true
	}
	return e, err
}

// Read keeps what it reads.
func (w *watchedFile) Read(p []byte) (int, error) {
	n, err := w.Contents.Read(p)
	if w.whole {
		w.data.Write(p[:n])
	}
	return n, err
}

// givenFiles are those for /etc/nixmodules that the user gave; nil if not.
type givenFiles struct{ auto, recommend, active []byte }

func (g *givenFiles) read(o BuildOptions) error {
	for _, f := range []struct {
		flag, name string
		data       *[]byte
	}{
		{"--auto-upgrade", o.AutoUpgrade, &g.auto},
		{"--recommend-upgrade", o.RecommendUpgrade, &g.recommend},
		{"--active-modules", o.ActiveModules, &g.active},
	} {
		if f.name == "" {
			continue
		}
		data, err := bundle.ReadObject(f.name)
		if err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
		*f.data = data
	}
	return nil
}

// fromMapping makes the upgrade maps.
func (g *givenFiles) fromMapping(name string, f *lock.File) error {
	m, err := modules.ReadMapping(name)
	if err != nil {
		return fmt.Errorf("--mapping: %w", err)
	}
	maps, err := m.Maps(f)
	if err != nil {
		return fmt.Errorf("--mapping: %s: %w", name, err)
	}
	if g.auto, err = modules.Encode(maps.Auto); err != nil {
		return err
	}
	g.recommend, err = modules.Encode(maps.Recommend)
	return err
}
