package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"bigdisk/image/inspect"
	"bigdisk/image/verify"
)

// TestHarmless: names out of an image, and what a server says, neither give
// orders to the terminal nor begin a line.
func TestHarmless(t *testing.T) {
	const evil = "a\x1b[2J\nerror: b\u009bc é"
	var out strings.Builder
	sizes := inspect.ModuleSizes{Module: inspect.Module{ID: evil}}
	err := errors.Join(
		printReport(&out, "x", &verify.Report{Findings: []verify.Finding{{Path: evil, Detail: evil}}}),
		printSummary(&out, "x", &inspect.Summary{Label: evil, Modules: []inspect.ModuleSizes{sizes}}),
		printDiff(&out, &inspect.Difference{Modules: inspect.ModuleChanges{
			Added: []inspect.ModuleSizes{sizes}, Removed: []inspect.ModuleSizes{sizes}, Changed: []inspect.ModuleChange{{ID: evil}},
		}}, false),
	)
	if err != nil {
		t.Fatal(err)
	}
	said := out.String()
	if strings.Contains(said, "\nerror: b") || strings.Count(said, `a\x1b[2J\nerror: b\u009bc é`) != 7 {
		t.Errorf("%q", said)
	}
	report(&out, t.Context(), errors.New(evil))
	newLogger(&out).Warn("x", slog.String("error", evil))
	if strings.ContainsAny(out.String(), "\x1b\u009b") {
		t.Errorf("%q", out.String())
	}
}
