package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"bigdisk/bundle"
	"bigdisk/bundle/store"
	"bigdisk/image"
	"bigdisk/image/atomicfile"
	"bigdisk/image/storedb"
	"bigdisk/pipeline/progress"
)

// How far reading runs ahead of the image.
const (
	openers = 16  // paths being opened at a time, besides one a job
	window  = 512 // paths read ahead
)

// storeDir is where store paths are, relative to the image's root.
var storeDir = strings.TrimPrefix(store.Dir, "/")

// writeImage writes everything, in the order of the plan. The database comes
// from its channel when it is time for it.
func (b *builder) writeImage(ctx context.Context, plan *plan, out *disk, found *findings, database <-chan *os.File) (*image.Layout, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := b.format.newWriter(ctx, out, plan.label)
	if err != nil {
		return nil, err
	}
	if err = b.fill(ctx, plan, w, found, database); err != nil {
		cancel()
	}
	if closeErr := w.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, err
	}
	return w.Layout(), nil
}

// fill adds the store, then what makes it one, then /etc/nixmodules.
func (b *builder) fill(ctx context.Context, plan *plan, w image.Writer, found *findings, database <-chan *os.File) error {
	before, after := splitLayout()
	if err := addFiles(w, before); err != nil {
		return err
	}
	if err := b.addStorePaths(ctx, plan, w, found); err != nil {
		return err
	}
	close(found.complete)
	if err := w.Begin(""); err != nil {
		return err
	}
	for _, f := range after {
		if err := addFile(w, &f); err != nil {
			return err
		}
		if f.Path == schemaPath {
			if err := addDatabase(ctx, w, database); err != nil {
				return err
			}
		}
	}
	return b.addEtc(plan, w, found)
}

// schemaPath is the file that the database comes after.
const schemaPath = "nix/var/nix/db/schema"

// splitLayout tells what comes before the store paths from what comes after.
func splitLayout() (before, after []storedb.File) {
	files := storedb.Layout()
	for i, f := range files {
		if strings.HasPrefix(f.Path, "nix/var") {
			return files[:i], files[i:]
		}
	}
	return files, nil
}

func addFiles(w image.Writer, files []storedb.File) error {
	for i := range files {
		if err := addFile(w, &files[i]); err != nil {
			return err
		}
	}
	return nil
}

func addFile(w image.Writer, f *storedb.File) error {
	if err := w.Create(&f.Entry); err != nil {
		return err
	}
	if f.Kind != store.Regular {
		return nil
	}
	_, err := w.Write(f.Data)
	return err
}

// addStorePaths adds the closure, a unit for each path. What is wrong with the
// image file is the fault of none of them.
func (b *builder) addStorePaths(ctx context.Context, plan *plan, w image.Writer, found *findings) error {
	stage := b.opts.Progress.Stage("write", progress.Bytes, plan.closure.NarBytes())
	defer stage.Finish()
	a := &ahead{
		openers: openers + b.opts.Jobs, readers: b.opts.Jobs, window: window,
		memory: b.opts.MemoryBudget / 4, spool: b.opts.SpoolBudget,
		size: func(i int) int64 {
			if b.kept(plan, i) {
				return 0
			}
			return plan.info(i).NarSize
		},
		open:  func(ctx context.Context, i int) (store.Contents, error) { return b.openPath(ctx, plan, i) },
		blame: plan.blame,
	}
	return a.each(ctx, len(plan.order), func(i int, c store.Contents) error {
		err := b.addStorePath(ctx, plan, i, c, w, found, stage)
		if errors.As(err, new(*image.EntryError)) {
			err = plan.blame(i, err)
		}
		return err
	})
}

// addStorePath adds one path.
func (b *builder) addStorePath(ctx context.Context, plan *plan, i int, c store.Contents, w image.Writer, found *findings, stage *progress.Stage) error {
	path := plan.order[i]
	if err := w.Begin(path.Base()); err != nil {
		return err
	}
	if k, ok := c.(*keptPath); ok {
		return k.addTo(w.(image.KeptWriter), storeDir+"/"+path.Base(), stage)
	}
	watched := found.watch(plan, path, c)
	counted := &countedContents{Contents: watched, stage: stage}
	if b.opts.InPlace && b.base.Has(path, plan.info(i).NarHash) {
		if err := b.addWatched(ctx, plan, i, w.(image.KeptWriter), counted); err != nil {
			return err
		}
	} else if err := image.AddTree(w, storeDir+"/"+path.Base(), counted); err != nil {
		return err
	}
	stage.Add(plan.info(i).NarSize - counted.n)
	if err := found.keep(plan, path, watched); err != nil {
		return plan.blame(i, err)
	}
	return nil
}

// addDatabase adds the database as soon as it is there.
func addDatabase(ctx context.Context, w image.Writer, database <-chan *os.File) error {
	var f *os.File
	select {
	case f = <-database:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	e := &store.Entry{Path: storedb.DatabasePath, Kind: store.Regular, Size: fi.Size()}
	if err := w.Create(e); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 256<<10))
	if err == nil && n != e.Size {
		err = fmt.Errorf("%s: %d of %d bytes: %w", e.Path, n, e.Size, io.ErrUnexpectedEOF)
	}
	return err
}

// addEtc adds the files about modules.
func (b *builder) addEtc(plan *plan, w image.Writer, found *findings) error {
	files, err := bundle.Etc(bundle.EtcInput{
		Entries: plan.entries, Modules: found.modules, Environments: found.environments,
		AutoUpgrade: b.given.auto, RecommendUpgrade: b.given.recommend, ActiveModules: b.given.active,
	})
	if err != nil {
		return err
	}
	made := make(map[string]bool)
	for _, f := range files {
		e := store.Entry{Path: bundle.EtcDir + "/" + f.Name, Kind: store.Regular, Size: int64(len(f.Data))}
		if err := addParents(w, e.Path, made); err != nil {
			return err
		}
		if err := addFile(w, &storedb.File{Entry: e, Data: f.Data}); err != nil {
			return err
		}
	}
	return nil
}

// addParents adds the directories that path is in, unless made has them.
func addParents(w image.Writer, path string, made map[string]bool) error {
	for i, c := range path {
		if c != '/' || made[path[:i]] {
			continue
		}
		made[path[:i]] = true
		if err := w.Create(&store.Entry{Path: path[:i], Kind: store.Directory}); err != nil {
			return err
		}
	}
	return nil
}

// writeDatabase makes the database in a file that has no name any more. What
// has the name while it is written is thrown away by the next build of output,
// which alone may, for it holds the lock on output's temporary file.
func (b *builder) writeDatabase(ctx context.Context, plan *plan, output string, found *findings) (*os.File, error) {
	stage := b.opts.Progress.Stage("database", progress.Steps, 0)
	defer stage.Finish()
	name := databaseTemp(output)
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	err := storedb.Write(ctx, name, infos(plan.closure), storedb.Options{
		Outputs:  found.outputs(ctx, plan),
		TempDir:  b.opts.ScratchDir,
		Progress: stage.Set,
	})
	if err != nil {
		return nil, err
	}
	defer os.Remove(name)
	return os.Open(name)
}

// infos gives the database what it is made of.
func infos(c *bundle.Closure) iter.Seq2[*store.PathInfo, error] {
	return func(yield func(*store.PathInfo, error) bool) {
		for info := range c.All() {
			if !yield(info, nil) {
				return
			}
		}
	}
}

// countedContents tells a stage of the bytes that pass.
type countedContents struct {
	store.Contents
	stage *progress.Stage
	n     int64
}

// Read counts what it reads.
func (c *countedContents) Read(p []byte) (int, error) {
	n, err := c.Contents.Read(p)
	c.count(n)
	return n, err
}

// WriteTo keeps the short way that the contents may have.
func (c *countedContents) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(countedWriter{w, c}, c.Contents)
}

func (c *countedContents) count(n int) {
	c.n += int64(n)
	c.stage.Add(int64(n))
}

type countedWriter struct {
	io.Writer
	c *countedContents
}

func (w countedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.c.count(n)
	return n, err
}

// databaseTemp is where the database of output is while it is written.
func databaseTemp(output string) string { return atomicfile.TempName(output) + "-db" }
