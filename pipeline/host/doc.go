// Package host is what runs on a machine that a disk is attached to: it finds
// the disk, checks it, mounts it read-only and makes it the current one
// ([Mount], [Watch]), and stacks a writable Nix store on it ([Overlay]).
//
// In flow block devices, which udev names after what they were attached as; out
// flow mounts below a directory, one for each version,
//
//	/mnt/SERVICE/VERSION      the disk, read-only
//	/mnt/SERVICE/current      a symlink to the version in use
//	/mnt/SERVICE/.state.json  in which order disks came, and the last report
//
// and reports of what has become of them. The symlink is the only thing that
// anybody needs to know. It is replaced in one step, and only ever names a disk
// that is mounted and has passed every check: whatever fails, or whenever this
// is killed, what was current before still is.
package host
