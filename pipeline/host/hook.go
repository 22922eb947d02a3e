package host

import (
	"bytes"
	"os"

	"bigdisk/image/atomicfile"
)

// hook is what Nix runs, with the store's directory, after it has deleted a
// store path that is in the upper directory and on a disk as well (remount-hook
// of its local-overlay store): it does so below the overlay, which shows
// directories as they were, or nothing, until it is mounted anew.
const hook = `#!/bin/sh
# Nix calls this with the store's directory; bigdisk host overlay writes it.
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin
# By mount(2), to which the overlay's options are no change; by fsconfig(2) they are, and refused.
export LIBMOUNT_FORCE_MOUNT2=always
exec mount -o remount "$1"
`

// writeHook sees that the hook is there.
func (u upper) writeHook() error {
	at := u.path(hookName)
	if text, err := os.ReadFile(at); err == nil && bytes.Equal(text, []byte(hook)) {
		return os.Chmod(at, 0o755)
	}
	f, err := atomicfile.Create(at)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write([]byte(hook)); err != nil {
		return err
	}
	if err := f.Chmod(0o755); err != nil {
		return err
	}
	return f.Commit()
}
