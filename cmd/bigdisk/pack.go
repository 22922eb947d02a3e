package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bigdisk/pipeline"
)

func newPack() *cobra.Command {
	var given buildOptions
	var shard string
	cmd := &cobra.Command{
		Use:   "pack --cache CACHE [--shard I/N] [the flags of build]",
		Short: "Compress a part of a closure into a cache",
		Long: `Compress store paths into a cache, for a build with the same flags to take them
from. N machines that run this, each with its own --shard, spread the work
without talking to each other; the build then only copies. A shard that was
killed is run again.

Without I, the shard is the one that the environment says: of a Kubernetes
indexed job (JOB_COMPLETION_INDEX), Cloud Batch (BATCH_TASK_INDEX and
BATCH_TASK_COUNT) or a Cloud Run job (CLOUD_RUN_TASK_INDEX and
CLOUD_RUN_TASK_COUNT).`,
		Example: `  bigdisk pack --shard 0/4 --cache gs://images/packed --lock modules.json --from https://cache.example.org
  bigdisk pack --shard /16 --cache gs://images/packed --config build.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			part, err := parseShard(shard, os.Getenv)
			if err != nil {
				return usageError{fmt.Errorf("--shard: %w", err), "see bigdisk pack --help"}
			}
			opts, err := given.withConfig(cmd.Flags())
			if err != nil {
				return err
			}
			return runPack(cmd.Context(), opts, part, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&shard, "shard", "", "the part to pack, `I/N`: part I, from 0, of N (default what the environment says, else all)")
	given.AddFlags(cmd.Flags())
	return cmd
}

// parseShard reads I/N. What is left out comes from the environment.
func parseShard(text string, getenv func(string) string) (pipeline.Shard, error) {
	index, count, _ := strings.Cut(text, "/")
	if index == "" {
		index = first(getenv, "JOB_COMPLETION_INDEX", "BATCH_TASK_INDEX", "CLOUD_RUN_TASK_INDEX")
	}
	if count == "" {
		count = first(getenv, "BATCH_TASK_COUNT", "CLOUD_RUN_TASK_COUNT")
	}
	if index == "" && count == "" {
		return pipeline.Shard{Count: 1}, nil
	}
	if index == "" || count == "" {
		return pipeline.Shard{}, errors.New("give both the part and the number of parts, as 0/4")
	}
	i, err := strconv.Atoi(index)
	if err != nil {
		return pipeline.Shard{}, fmt.Errorf("%q is not a part's number", index)
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return pipeline.Shard{}, fmt.Errorf("%q is not a number of parts", count)
	}
	if n < 1 || i < 0 || i >= n {
		return pipeline.Shard{}, fmt.Errorf("there is no part %d of %d: the first is 0", i, n)
	}
	return pipeline.Shard{Index: i, Count: n}, nil
}

func first(getenv func(string) string, names ...string) string {
	for _, name := range names {
		if v := getenv(name); v != "" {
			return v
		}
	}
	return ""
}

func runPack(ctx context.Context, opts *buildOptions, shard pipeline.Shard, stdout io.Writer) error {
	var result *pipeline.PackResult
	err := opts.run(func(build pipeline.BuildOptions) (err error) {
		result, err = pipeline.Pack(ctx, build, shard)
		return err
	})
	if err != nil {
		return err
	}
	if opts.JSON {
		return json.NewEncoder(stdout).Encode(result)
	}
	const mib = 1 << 20
	_, err = fmt.Fprintf(stdout, "shard %d of %d: %d store paths of %.1f MiB, %d of them found in the cache\n",
		result.Shard, result.Of, result.Paths, float64(result.NarBytes)/mib, result.Found)
	return err
}
