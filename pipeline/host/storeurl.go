package host

import (
	"net/url"
	"path/filepath"
	"strings"

	"bigdisk/bundle/store"
)

// lowerStore is what Nix calls the store on a disk.
func lowerStore(root string) string { return "local?root=" + escape(root) + "&read-only=true" }

// stackedStore is what Nix calls the store on several disks: their merged
// directories, and a database that has what all of theirs have.
func stackedStore(u upper) string {
	return "local?real=" + escape(u.path(stackName, "store")) + "&state=" + escape(u.path(stackName, stateDir)) + "&read-only=true"
}

// overlayStore is what Nix calls the layered store. Nix decodes the URL of the
// lower store twice (percentDecode in local-overlay-store.cc): what is in it
// must not change by that, and does not, since no path here has a percent sign
// after it is decoded once.
func overlayStore(u upper, at, lower string) string {
	query := []string{
		"state=" + escape(u.path(stateDir)),
		"log=" + escape(u.path(logName)),
		"lower-store=" + url.QueryEscape(lower),
		"upper-layer=" + escape(u.path(upperName)),
		"remount-hook=" + escape(u.path(hookName)),
	}
	if filepath.Clean(at) != store.Dir {
		query = append(query, "real="+escape(at))
	}
	return "local-overlay://?" + strings.Join(query, "&")
}

// escape writes a path as a value in a URL's query: slashes stay as they are.
func escape(path string) string { return strings.ReplaceAll(url.QueryEscape(path), "%2F", "/") }
