// Package worktree keeps a lock file together with the Git work tree that it
// is part of: it locks what the flake's modules have become, and checks that
// the file was only ever added to.
package worktree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/nixcmd"
)

// ErrDirty is wrapped when a work tree has changes that no commit has.
var ErrDirty = errors.New("the work tree has changes that are not committed")

// UpdateOptions say what is locked.
type UpdateOptions struct {
	// Lock is the lock file; one that does not exist counts as empty.
	Lock string
	// Flake is the directory of the flake, in a Git work tree; "" is the lock
	// file's.
	Flake string
	// Attr is the flake's attribute with the modules; "" is
	// [nixcmd.DefaultAttr].
	Attr string
	// Dirty evaluates the work tree as it is, changes included, and locks that
	// for the commit that is checked out.
	Dirty bool
	// Client is the Nix to use.
	Client nixcmd.Client
	// Log gets Nix's log; nil drops it.
	Log *nixcmd.Log
}

// Update is what locking the modules adds to a lock file.
type Update struct {
	// Entries are added at the end; none if nothing has changed.
	Entries []lock.Entry
	// Text is the whole file then.
	Text []byte
	// Commit is what was evaluated.
	Commit lock.Commit
}

// NewUpdate evaluates the modules of the commit that is checked out and finds
// out which of them are not locked yet. It writes nothing. Changes that are not
// committed, other than to the lock file itself, are refused with [ErrDirty].
func NewUpdate(ctx context.Context, opts UpdateOptions) (*Update, error) {
	opts.Attr = cmp.Or(opts.Attr, nixcmd.DefaultAttr)
	old, file, err := readLock(opts.Lock)
	if err != nil {
		return nil, err
	}
	flake, err := localFlake(ctx, opts)
	if err != nil {
		return nil, err
	}
	if !opts.Dirty {
		if err := checkClean(ctx, flake.Repo, opts.Lock); err != nil {
			return nil, err
		}
	}
	commit, date, err := head(ctx, flake.Repo)
	if err != nil {
		return nil, err
	}
	at := commit.String()
	if opts.Dirty {
		at = ""
	}
	modules, err := opts.Client.ModulePaths(ctx, flake, at, opts.Attr, opts.Log)
	if err != nil {
		return nil, fmt.Errorf("evaluate %s#%s: %w", flake.At(at), opts.Attr, err)
	}
	u := &Update{Entries: file.Update(modules, commit, date), Text: old, Commit: commit}
	if len(u.Entries) == 0 {
		return u, nil
	}
	var text bytes.Buffer
	if err := file.Append(&text, bytes.NewReader(old), u.Entries); err != nil {
		return nil, fmt.Errorf("%s: %w", opts.Lock, err)
	}
	u.Text = text.Bytes()
	return u, nil
}

// empty is a lock file without entries.
const empty = "{\n}"

// readLock reads and checks a lock file; one that does not exist is empty.
func readLock(name string) ([]byte, *lock.File, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(empty), nil
	}
	if err != nil {
		return nil, nil, err
	}
	file, err := lock.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w%s", name, err, conflictHint(text))
	}
	return text, file, nil
}

// conflictHint tells what to do about a merge that has not been finished.
func conflictHint(text []byte) string {
	if bytes.HasPrefix(text, []byte("<<<<<<< ")) || bytes.Contains(text, []byte("\n<<<<<<< ")) {
		return " (a merge has left conflict markers: take upstream's file as it is, then run bigdisk lock update)"
	}
	return ""
}

// localFlake opens the flake, which has to be on this machine.
func localFlake(ctx context.Context, opts UpdateOptions) (*nixcmd.Flake, error) {
	dir := opts.Flake
	if dir == "" {
		dir = filepath.Dir(opts.Lock)
	}
	flake, err := nixcmd.OpenFlake(ctx, dir)
	if err != nil {
		return nil, err
	}
	if flake.Repo == nil {
		return nil, fmt.Errorf("%s is not on this machine: clone it, and give --flake the directory", dir)
	}
	return flake, nil
}

// checkClean refuses changes to anything but the lock file.
func checkClean(ctx context.Context, repo *git.Repo, lockFile string) error {
	changed, err := repo.Changed(ctx)
	if err != nil {
		return err
	}
	if name, err := inside(repo, lockFile); err == nil {
		changed = slices.DeleteFunc(changed, func(c string) bool { return c == name })
	}
	if len(changed) == 0 {
		return nil
	}
	const most = 5
	list := strings.Join(changed[:min(most, len(changed))], ", ")
	if len(changed) > most {
		list += ", …"
	}
	return fmt.Errorf("%s: %w: %s: commit them first, or give --dirty to lock them for the commit before", repo.Dir(), ErrDirty, list)
}

// inside is the file's name relative to the top of the work tree. The file
// need not exist, its directory has to.
func inside(repo *git.Repo, file string) (string, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	name, err := filepath.Rel(repo.Dir(), filepath.Join(dir, filepath.Base(abs)))
	if err != nil || name == ".." || strings.HasPrefix(name, "../") {
		return "", fmt.Errorf("%s is not in the work tree %s", file, repo.Dir())
	}
	return name, nil
}

// head is the commit that is checked out and its day: the author's, in the
// author's time zone, as nixmodules has it.
func head(ctx context.Context, repo *git.Repo) (lock.Commit, lock.Date, error) {
	id, err := repo.Resolve(ctx, "HEAD")
	if err != nil {
		return lock.Commit{}, 0, err
	}
	commit, err := lock.ParseCommit(id)
	if err != nil {
		return commit, 0, err
	}
	dates, err := repo.Dates(ctx, []string{id})
	if err != nil {
		return commit, 0, err
	}
	day, err := lock.ParseDay(dates[id].Author)
	return commit, day, err
}
