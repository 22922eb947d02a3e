package main

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// version says what this binary was built from, as the Go linker recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	return describeBuild(info)
}

// describeBuild gives the module's version, the revision and its time where
// they are known, and the Go version.
func describeBuild(info *debug.BuildInfo) string {
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	parts := []string{info.Main.Version}
	if parts[0] == "" {
		parts[0] = "(devel)"
	}
	if revision := settings["vcs.revision"]; revision != "" {
		if settings["vcs.modified"] == "true" {
			revision += " (modified)"
		}
		parts = append(parts, fmt.Sprintf("revision %s of %s", revision, settings["vcs.time"]))
	}
	return strings.Join(append(parts, info.GoVersion), ", ")
}
