package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// cost is what one run of a command took. The peak is the largest of the
// processes that it ran, in bytes.
type cost struct {
	wall, cpu time.Duration
	peak      int64
}

// add is the cost of one thing after the other.
func (c cost) add(d cost) cost {
	return cost{c.wall + d.wall, c.cpu + d.cpu, max(c.peak, d.peak)}
}

// measure runs a command line to its end.
func measure(ctx context.Context, argv ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(start)}
	if err != nil {
		return c, fmt.Errorf("%s: %w\n%s", strings.Join(argv[:min(len(argv), 8)], " "), err, tail(out.String()))
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.peak = usage.Maxrss << 10
	}
	return c, nil
}

func tail(s string) string {
	const most = 1000
	if len(s) > most {
		return "…" + s[len(s)-most:]
	}
	return s
}

// fileSize is the length of a file, or of all files in a directory.
func fileSize(name string) (int64, error) {
	info, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	// Sparse images are measured by what they take on the disk.
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Blocks*512 < info.Size() {
		return stat.Blocks * 512, nil
	}
	return info.Size(), nil
}
