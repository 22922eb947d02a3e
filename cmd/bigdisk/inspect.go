package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bigdisk/image/atomicfile"
	"bigdisk/image/inspect"
)

type inspectOptions struct {
	manifestOptions
	HTML    string
	Largest int
	JSON    bool
}

// AddFlags binds the options to flags, and gives them their defaults.
func (o *inspectOptions) AddFlags(f *pflag.FlagSet) {
	f.SortFlags = false
	o.manifestOptions.AddFlags(f)
	f.StringVar(&o.HTML, "html", "", "write a page to this `FILE` that shows in a browser what fills the disk")
	f.IntVar(&o.Largest, "largest", 10, "name the `N` largest store paths")
	f.BoolVar(&o.JSON, "json", false, "print the result as JSON")
}

func newInspect() *cobra.Command {
	var opts inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect IMAGE",
		Short: "Say what is in an image, and what it takes",
		Long: `Print an image's format and size, how many store paths and files it has, how well
it compresses, the largest store paths, and for each module what it needs and
what only it needs. With --html, write one page with a map of it all.`,
		Example: `  bigdisk inspect disk.sqsh
  bigdisk inspect --json --largest 100 disk.sqsh
  bigdisk inspect --html disk.html disk.sqsh`,
		Args: oneImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInspect(cmd.Context(), &opts, args[0], cmd.OutOrStdout())
		},
	}
	opts.AddFlags(cmd.Flags())
	return cmd
}

func runInspect(ctx context.Context, opts *inspectOptions, name string, stdout io.Writer) error {
	if opts.Largest < 0 {
		return usageError{fmt.Errorf("--largest %d: it cannot be negative", opts.Largest), "see bigdisk inspect --help"}
	}
	s, err := openStore(ctx, &opts.manifestOptions, name)
	if err != nil {
		return err
	}
	if opts.HTML != "" {
		if err := writePage(s, opts.HTML, filepath.Base(name)); err != nil {
			return err
		}
	}
	summary := s.Summarize(opts.Largest)
	if opts.JSON {
		return json.NewEncoder(stdout).Encode(summary)
	}
	return printSummary(stdout, name, summary)
}

func openStore(ctx context.Context, opts *manifestOptions, name string) (*inspect.Store, error) {
	m, err := opts.load(name)
	if err != nil {
		return nil, err
	}
	return inspect.Open(ctx, name, inspect.Options{Manifest: m})
}

// writePage writes the page, which appears under its name only once it is whole.
func writePage(s *inspect.Store, name, title string) error {
	f, err := atomicfile.Create(name)
	if err != nil {
		return err
	}
	defer f.Discard()
	if err := s.WritePage(f, title); err != nil {
		return err
	}
	return f.Commit()
}

// printSummary writes a summary for people.
func printSummary(w io.Writer, name string, s *inspect.Summary) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	format := s.Image.Format
	if s.Image.Compression != "" {
		format += ", " + s.Image.Compression + fmt.Sprintf(", blocks of %d KiB", s.Image.BlockSize>>10)
	}
	if s.Image.Partitioned {
		format += ", in a GPT partition"
	}
	fmt.Fprintf(t, "image\t%s\nformat\t%s\nsize\t%s\n", name, format, humanBytes(s.Image.Size))
	for _, line := range [][2]string{{"label", s.Label}, {"sha256", s.SHA256}, {"verity root", s.Verity}} {
		if line[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", line[0], harmless(line[1], ""))
		}
	}
	fmt.Fprintf(t, "store paths\t%d\nfiles\t%d of %s, %d directories, %d symlinks\n", s.StorePaths, s.Files, humanBytes(s.Bytes), s.Dirs, s.Symlinks)
	if s.UniqueBytes > 0 {
		fmt.Fprintf(t, "unique\t%s\n", humanBytes(s.UniqueBytes))
	}
	fmt.Fprintf(t, "ratio\t%.2f : 1\n", s.Ratio)
	if len(s.Largest) > 0 {
		fmt.Fprint(t, "\nlargest store path\tNAR size\n")
	}
	for _, p := range s.Largest {
		fmt.Fprintf(t, "%s\t%s\n", p.Path, humanBytes(p.NarSize))
	}
	if len(s.Modules) > 0 {
		fmt.Fprint(t, "\nmodule\tneeds\tonly it needs\tstore paths\n")
	}
	for _, m := range s.Modules {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", harmless(m.ID, ""), humanBytes(m.Closure), humanBytes(m.Own), m.Paths)
	}
	return t.Flush()
}

// humanBytes writes a size as it is read best, in units of 1024.
func humanBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for ; value >= 1023.95; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
