package nixcmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/store"
)

// Flake is a flake in a repository, at no particular commit.
type Flake struct {
	// Repo is the work tree, nil if it is not on this machine.
	Repo *git.Repo
	ref  string
}

// DefaultAttr is the attribute of a flake that has its modules, unless another
// is given.
const DefaultAttr = "modules"

// ErrFlake is wrapped by errors about how a flake is referred to.
var ErrFlake = errors.New("not a flake that can be locked")

func unescape(s string) (string, error) { return url.PathUnescape(s) }

// scheme is how references that are no directory start.
var scheme = regexp.MustCompile(`^[a-z][a-z0-9+.-]*:`)

// OpenFlake finds the flake that the reference stands for: a directory in a Git
// work tree, "." for instance, or anything that Nix can fetch at a commit
// (git+https://HOST/REPO, github:OWNER/REPO). It has no fragment and names no
// commit.
func OpenFlake(ctx context.Context, ref string) (*Flake, error) {
	before, query, _ := strings.Cut(ref, "?")
	for _, param := range strings.Split(query, "&") {
		if key, _, _ := strings.Cut(param, "="); key == "rev" || key == "ref" || key == "narHash" {
			return nil, fmt.Errorf("%w: %s: leave out %s=: the lock file says which commit", ErrFlake, ref, key)
		}
	}
	if strings.Contains(ref, "#") {
		return nil, fmt.Errorf("%w: %s: leave out what follows the #: the attribute is given by itself", ErrFlake, ref)
	}
	if dir, ok := strings.CutPrefix(before, "git+file://"); ok {
		dir, err := unescape(dir)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrFlake, ref, err)
		}
		repo, err := git.Open(ctx, dir)
		return &Flake{Repo: repo, ref: ref}, err
	}
	if ref == "" || strings.HasPrefix(ref, "path:") {
		return nil, fmt.Errorf("%w: %q: it has to be in a Git repository", ErrFlake, ref)
	}
	if scheme.MatchString(ref) {
		return &Flake{ref: ref}, nil
	}
	return openDir(ctx, ref)
}

// openDir finds the flake in a directory.
func openDir(ctx context.Context, dir string) (*Flake, error) {
	repo, err := git.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return nil, err
	}
	inside, err := filepath.Rel(repo.Dir(), abs)
	if err != nil {
		return nil, err
	}
	ref := "git+file://" + (&url.URL{Path: repo.Dir()}).EscapedPath()
	if inside != "." {
		ref += "?dir=" + url.QueryEscape(inside)
	}
	return &Flake{Repo: repo, ref: ref}, nil
}

// String is the reference without a commit.
func (f *Flake) String() string { return f.ref }

// At is the reference with a commit, "" for the work tree as it is.
func (f *Flake) At(commit string) string {
	switch {
	case commit == "":
		return f.ref
	case strings.Contains(f.ref, "?"):
		return f.ref + "&rev=" + commit
	}
	return f.ref + "?rev=" + commit
}

// Module is what evaluating a module gives.
type Module struct {
	// Path is the store path that it will have.
	Path store.Path
	Output
}

// Modules evaluates modules of the flake's attribute at a commit ("" is the
// work tree), all at once: those with the IDs, which the flake may lack.
func (c *Client) Modules(ctx context.Context, f *Flake, commit, attr string, ids []lock.ID, log *Log) (map[lock.ID]Module, error) {
	all := make(map[lock.ID]Module)
	quoted := make([]string, len(ids))
	for i, id := range ids {
		quoted[i] = `"` + string(id) + `"` // of [0-9A-Za-z+._-]
	}
	for _, some := range evalChunks(quoted) {
		apply := "modules: builtins.listToAttrs (map (id: { name = id; value = let m = modules.${id}; in { " +
			`out = m.outPath; drv = m.drvPath; output = m.outputName or "out"; }; }) ` +
			"(builtins.filter (id: modules ? ${id}) [ " + strings.Join(some, " ") + " ]))"
		var modules map[lock.ID]struct{ Out, Drv, Output string }
		if err := c.eval(ctx, f.At(commit)+"#"+attr, apply, &modules, log); err != nil {
			return nil, err
		}
		for id, m := range modules {
			path, err := evaluatedPath(id, m.Out)
			if err != nil {
				return nil, err
			}
			drv, err := store.ParsePath(m.Drv)
			if err != nil {
				return nil, fmt.Errorf("module %s: %w", id, err)
			}
			all[id] = Module{path, Output{drv, m.Output}}
		}
	}
	return all, nil
}

// evalChunks cuts IDs so that they fit into an argument, 128 KiB on Linux.
func evalChunks(ids []string) [][]string {
	const most = 500 // of at most [lock.MaxIDLen] bytes
	var all [][]string
	for ; len(ids) > most; ids = ids[most:] {
		all = append(all, ids[:most])
	}
	return append(all, ids)
}

// evaluatedPath checks the path of a module; one whose derivation is content
// addressed is not known yet.
func evaluatedPath(id lock.ID, out string) (store.Path, error) {
	path, err := store.ParsePath(out)
	if err != nil {
		return "", fmt.Errorf("module %s: its path cannot be known without building it (%s): content-addressed derivations cannot be locked", id, clip(out, 100))
	}
	return path, nil
}

// ModulePaths evaluates all modules of the flake's attribute at a commit ("" is
// the work tree): the store path of each.
func (c *Client) ModulePaths(ctx context.Context, f *Flake, commit, attr string, log *Log) (map[lock.ID]store.Path, error) {
	var modules map[string]string
	apply := "modules: builtins.mapAttrs (id: m: m.outPath) modules"
	if err := c.eval(ctx, f.At(commit)+"#"+attr, apply, &modules, log); err != nil {
		return nil, err
	}
	paths := make(map[lock.ID]store.Path, len(modules))
	for name, out := range modules {
		id, err := lock.ParseID(name)
		if err != nil {
			return nil, fmt.Errorf("%s#%s: %w", f, attr, err)
		}
		if paths[id], err = evaluatedPath(id, out); err != nil {
			return nil, err
		}
	}
	return paths, nil
}

// escaped tells whether the name of the local repository that an installable is in
// is escaped. What follows it, as ?dir=a%2Fb, no Nix minds.
func escaped(installable string) bool {
	repository, _, _ := strings.Cut(installable, "?")
	return strings.HasPrefix(repository, "git+file:") && strings.Contains(repository, "%")
}

// eval evaluates an installable and applies a function to it.
func (c *Client) eval(ctx context.Context, installable, apply string, into any, log *Log) error {
	args := append([]string{"eval", "--extra-experimental-features", "nix-command flakes", "--json", "--no-write-lock-file"}, jsonLog...)
	out, err := c.run(ctx, c.command("nix", append(args, installable, "--apply", apply)...), log)
	if err != nil && escaped(installable) {
		return fmt.Errorf("%w (older Nix cannot fetch from a directory whose name has to be escaped in a URL)", err)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("nix eval %s: %w", installable, err)
	}
	return nil
}
