package treegen

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// setTime sets a file's time to what a Nix store has, a symlink's included.
func setTime(path string) error {
	at := []unix.Timespec{{Sec: 1}, {Sec: 1}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, at, unix.AT_SYMLINK_NOFOLLOW)
}

func closeDir(dir string) error {
	if err := os.Chmod(dir, 0o555); err != nil {
		return err
	}
	return setTime(dir)
}

func rewrite(path, text string) error {
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o444); err != nil {
		return err
	}
	return setTime(path)
}

func extra(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "extra"), nil, 0o444); err != nil {
		return err
	}
	return closeDir(dir)
}

func gone(dir, name string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return closeDir(dir)
}
