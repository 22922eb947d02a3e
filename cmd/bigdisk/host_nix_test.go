package main

import (
	"testing"

	"bigdisk/image/imagetest"
)

// TestNixOverDisks lets a Nix that knows layered stores build on disks as
// bigdisk host mounts them, while they are replaced by others, see
// testdata/host.sh.
func TestNixOverDisks(t *testing.T) {
	imagetest.NeedRoot(t, "mount an image")
	imagetest.NeedTools(t, "unshare", "chroot", "nbdkit", "nbdfuse")
	nix := newerNix(t)
	first := []string{"--module", "hello-1:v1-20240311-645f99f", "--module", "notes-2:v1-20240311-8036cc9"}
	second := []string{"--module", "hello-1:v2-20240502-603953c", "--module", "notes-2:v2-20240502-e977eb0"}
	old, all, later := buildExampleAs(t, "old.sqsh", first...), buildExampleAs(t, "all.raw"), buildExampleAs(t, "later.sqsh", second...)
	for check, images := range map[string][]string{
		"moves":   {old, all, later},
		"lost":    {old, later},
		"stack":   {old, buildExampleAs(t, "later.raw", second...)},
		"network": {old, later},
		"nested":  {old, later},
	} {
		t.Run(check, func(t *testing.T) {
			imagetest.Command(t, "unshare", append([]string{"--mount", "bash", "testdata/host.sh", nix, binary(t), check}, images...)...)
		})
	}
}
