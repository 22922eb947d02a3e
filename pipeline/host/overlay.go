package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sys/unix"

	"bigdisk/bundle/store"
)

// DefaultStoreAt is where the layered store is mounted.
const DefaultStoreAt = store.Dir

// OverlayOptions are the choices of [Overlay].
type OverlayOptions struct {
	// Lowers are the directories where disks are mounted. Where several have
	// the same store path, it is the same.
	Lowers []string
	// Upper is the directory of the writable store: what is built, and Nix's
	// database of it. It survives every change of the lower disks.
	Upper string
	// At is where the store is mounted; "" is [DefaultStoreAt].
	At string
	// DropLost gives up what was built on store paths that are on no disk any
	// more, instead of refusing to go on.
	DropLost bool
	// Logger gets what is not worth an error; nil keeps it silent.
	Logger *slog.Logger
}

// Layered is a mounted store of several layers.
type Layered struct {
	// URL is what Nix calls the store.
	URL string `json:"url"`
	// At is where it is mounted, over Lowers.
	At     string   `json:"at"`
	Lowers []string `json:"lowers"`
	// Mounted is set if it was mounted now, and false if it was there already.
	Mounted bool `json:"mounted"`
	// Copied are the store paths that were taken from a disk before, since what
	// was built needs them and the new disks lack them.
	Copied []store.Path `json:"copied,omitempty"`
	// Dropped are the store paths that were given up.
	Dropped []store.Path `json:"dropped,omitempty"`
}

// The directories in [OverlayOptions.Upper].
const (
	upperName  = "upper" // what is built
	workName   = "work"  // the kernel's own
	stateDir   = "state" // Nix's: database, profiles, roots
	logName    = "log"   // Nix's
	stackName  = "stack" // what makes several disks one
	heldName   = "held"  // the store as it was, while it moves
	recordName = "lowers.json"
	hookName   = "remount"
)

// upper is the directory of a writable store.
type upper struct{ dir string }

func (u upper) path(names ...string) string {
	return filepath.Join(append([]string{u.dir}, names...)...)
}

// database is Nix's own, which is there once Nix has used the store.
func (u upper) database() string { return u.path(stateDir, "db", "db.sqlite") }

// Overlay mounts a writable store over disks, so that Nix's local-overlay store
// can use it. If it is mounted over other disks, which nobody may be using any
// more, it moves: what was built stays, and so does everything that it needs.
// Store paths which the new disks lack are copied from the disks before, as
// long as those are mounted, or the store is. What can be found nowhere is an
// error that wraps [ErrLost]; then, as with any other error, the store that was
// mounted still is.
func Overlay(ctx context.Context, o OverlayOptions) (*Layered, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	lowers, err := o.lowers()
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Upper)
	if err != nil {
		return nil, err
	}
	u := upper{dir}
	for _, name := range []string{upperName, workName, stateDir, logName} {
		if err := os.MkdirAll(u.path(name), 0o755); err != nil {
			return nil, err
		}
	}
	lock, err := (layout{dir}).lock()
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := u.writeHook(); err != nil {
		return nil, err
	}
	return o.layer(ctx, u, lowers)
}

// lowers are the real directories of the disks.
func (o *OverlayOptions) lowers() ([]string, error) {
	if len(o.Lowers) == 0 {
		return nil, errors.New("a layered store needs a disk to stand on")
	}
	var lowers []string
	for _, dir := range o.Lowers {
		dir, err := filepath.Abs(dir)
		if err != nil {
			return nil, err
		}
		if dir, err = filepath.EvalSymlinks(dir); err != nil {
			return nil, err
		}
		if slices.Contains(lowers, dir) {
			return nil, fmt.Errorf("%s is there twice", dir)
		}
		lowers = append(lowers, dir)
	}
	return lowers, nil
}

// layer mounts the store.
func (o *OverlayOptions) layer(ctx context.Context, u upper, lowers []string) (*Layered, error) {
	at := cmp.Or(o.At, DefaultStoreAt)
	l := &Layered{At: at, Lowers: lowers}
	lower, lowerURL := lowers[0], lowerStore(lowers[0])
	storeDir := filepath.Join(lower, store.Dir)
	if len(lowers) > 1 {
		storeDir, lowerURL = u.path(stackName, "store"), stackedStore(u)
	}
	l.URL = overlayStore(u, at, lowerURL)
	if err := plainPaths(append([]string{u.dir, at}, lowers...)); err != nil {
		return nil, err
	}
	stands, err := standing(lowers)
	if err != nil {
		return nil, err
	}
	before := u.record()
	there, err := u.mountedAt(at)
	if err != nil || there && slices.Equal(before, stands) {
		return l, err
	}
	disks, err := openDisks(ctx, lowers)
	if err != nil {
		return nil, err
	}
	defer disks.close()
	if len(lowers) > 1 {
		if err := u.prepareStack(ctx, lowers); err != nil {
			return nil, err
		}
	}
	// All that can be found out beforehand is: from here on the store is away.
	if err := u.hold(at, there); err != nil {
		return nil, err
	}
	if l.Copied, l.Dropped, err = o.reconcile(ctx, u, disks, before); err == nil {
		err = u.setStack(lowers)
	}
	if err != nil {
		return nil, errors.Join(err, u.giveBack(at))
	}
	// Remembered first: killed here, all is as if it had been unmounted.
	if err := errors.Join(u.remember(stands), u.release()); err != nil {
		return nil, err
	}
	l.Mounted = true
	return l, mountOverlay(at, storeDir, u)
}

// mountOverlay mounts the kernel's part of it. The features that are switched
// off would write down which disk is below, and it changes.
func mountOverlay(at, storeDir string, u upper) error {
	options := "lowerdir=" + storeDir + ",upperdir=" + u.path(upperName) + ",workdir=" + u.path(workName) + ",index=off,metacopy=off,redirect_dir=nofollow"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("overlay", at, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount an overlay of %s and %s at %s: %w", storeDir, u.path(upperName), at, err)
	}
	return nil
}

// plain is what a path may consist of: it becomes part of a mount's options, of
// a URL that is decoded twice, and of a regular expression of Nix's.
var plain = regexp.MustCompile(`^/[0-9A-Za-z/._@~-]*$`)

func plainPaths(paths []string) error {
	for _, p := range paths {
		if !plain.MatchString(p) {
			return fmt.Errorf("%q cannot be part of a layered store: Nix finds only absolute paths of letters, digits and any of /._@~-", p)
		}
	}
	return nil
}

// mountedAt reports whether this store is mounted at a directory. Another
// layered store there is an error.
func (u upper) mountedAt(at string) (bool, error) {
	m, err := mountAt(at)
	if err != nil || m == nil || m.Type != "overlay" {
		return false, err
	}
	if !slices.Contains(m.Super, "upperdir="+u.path(upperName)) {
		return false, fmt.Errorf("%s: another overlay is mounted there: unmount it first", at)
	}
	return true, nil
}

// removeWhiteouts takes away the marks by which the kernel remembers that
// something of a disk was deleted: on another disk they would hide what is there.
func (u upper) removeWhiteouts() error {
	entries, err := os.ReadDir(u.path(upperName))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeCharDevice == 0 {
			continue
		}
		if err := os.Remove(u.path(upperName, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
