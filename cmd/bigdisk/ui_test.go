package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"

	"bigdisk/pipeline"
)

func TestReport(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name   string
		ctx    context.Context
		err    error
		status int
		says   string
	}{
		{"success", t.Context(), nil, exitSuccess, ""},
		{"failure", t.Context(), errors.New("it broke"), exitFailure, "bigdisk: it broke\n"},
		{"usage", t.Context(), fmt.Errorf("build: %w", usageError{errors.New("what?"), "this"}), exitUsage, "bigdisk: build: what?\nbigdisk: hint: this\n"},
		{"pipeline's usage", t.Context(), fmt.Errorf("%w: no output", pipeline.ErrUsage), exitUsage, "bigdisk: no output\nbigdisk: hint: see bigdisk build --help\n"},
		{"full disk", t.Context(), &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitFailure, "bigdisk: write x: no space left on device\nbigdisk: hint: free some space there; what is temporary goes to TMPDIR\n"},
		{"interrupted", cancelled, fmt.Errorf("fetch: %w", context.Canceled), exitFailure, "bigdisk: interrupted\n"},
		{"interrupted, and what is left", cancelled, fmt.Errorf("build: %w", afterInterrupt{fmt.Errorf("fetch: %w", context.Canceled), "it goes on"}), exitFailure, "bigdisk: interrupted; it goes on\n"},
		{"a failure that leaves the same", t.Context(), afterInterrupt{errors.New("it broke"), "it goes on"}, exitFailure, "bigdisk: it broke\n"},
		{"failed, then interrupted", cancelled, errors.New("it broke"), exitFailure, "bigdisk: it broke\n"},
		{"a time-out inside", t.Context(), fmt.Errorf("fetch: %w", context.Canceled), exitFailure, "bigdisk: fetch: context canceled\n"},
	}
	for _, test := range tests {
		var said strings.Builder
		if got := report(&said, test.ctx, test.err); got != test.status || said.String() != test.says {
			t.Errorf("%s: status %d, want %d, and says %q, want %q", test.name, got, test.status, said.String(), test.says)
		}
	}
}

func TestLogger(t *testing.T) {
	var said strings.Builder
	log := newLogger(&said)
	log.Debug("not shown")
	log.Info("trying the next store", "path", "/nix/store/x")
	log.With("store", 1).WithGroup("http").Warn("slow", "status", 503)
	want := "bigdisk: trying the next store path=/nix/store/x\nbigdisk: warn: slow store=1 http.status=503\n"
	if said.String() != want {
		t.Errorf("got %q, want %q", said.String(), want)
	}
	if log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug messages are enabled")
	}
}

func TestDescribeBuild(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.8", Main: debug.Module{Version: "v1.2.3"}, Settings: []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123abc"}, {Key: "vcs.time", Value: "2026-11-22T02:00:00Z"}, {Key: "vcs.modified", Value: "true"},
	}}
	if got, want := describeBuild(info), "v1.2.3, revision 0123abc (modified) of 2026-11-22T02:00:00Z, go1.26.8"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := describeBuild(&debug.BuildInfo{GoVersion: "go1.26.8"}), "(devel), go1.26.8"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
