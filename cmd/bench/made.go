package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"bigdisk/bundle/lock"
	"bigdisk/bundle/source"
	"bigdisk/cmd/bench/synth"
	"bigdisk/pipeline"
	"bigdisk/pipeline/memory"
)

// made is a build from a synthetic store. It has a command of its own, so that
// it is measured as a process.
type made struct {
	paths     int
	output    string
	verify    bool
	cpu, heap string // profiles
}

// madeCommand is called by bench itself, and by those who profile.
func madeCommand() *cobra.Command {
	var m made
	c := &cobra.Command{
		Use:   "made --paths N -o FILE",
		Short: "make an image of a synthetic store",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return m.profiled(c.Context()) },
	}
	f := c.Flags()
	f.IntVar(&m.paths, "paths", 10000, "the number of store paths")
	f.StringVarP(&m.output, "output", "o", "", "the image")
	f.StringVar(&m.cpu, "cpuprofile", "", "write a CPU profile here")
	f.StringVar(&m.heap, "memprofile", "", "write a profile of the memory here, of when most of it was in use")
	return c
}

func (m *made) profiled(ctx context.Context) error {
	memory.Limit(ctx) // as bigdisk does
	stop, err := startProfiles(m.cpu, m.heap)
	if err != nil {
		return err
	}
	return errors.Join(m.build(ctx), stop())
}

// build makes the image. Its lock file lies beside it.
func (m *made) build(ctx context.Context) error {
	s := synth.Store{N: m.paths, Seed: 1}
	text, err := lock.Marshal(s.Lock())
	if err != nil {
		return err
	}
	name := m.output + ".lock.json"
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	defer os.Remove(name)
	r, err := pipeline.Build(ctx, pipeline.BuildOptions{Lock: name, Sources: []source.Source{s}, Output: m.output, Verify: m.verify})
	if err != nil {
		return err
	}
	if r.Totals.StorePaths != int64(m.paths) {
		return fmt.Errorf("%d store paths instead of %d", r.Totals.StorePaths, m.paths)
	}
	return nil
}
