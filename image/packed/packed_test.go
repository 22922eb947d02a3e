package packed

import (
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image"
)

// TestKey keeps names of files from changing, or staying, by accident: another
// version of what is in them needs other names.
func TestKey(t *testing.T) {
	opts := image.ManifestOptions{Compression: "zstd:default", BlockSize: 262144, Owner: "0:0", Layout: 1}
	seen := make(map[string]bool)
	for _, change := range []func(*image.ManifestOptions){
		func(*image.ManifestOptions) {},
		func(o *image.ManifestOptions) { o.Compression = "zstd:best" },
		func(o *image.ManifestOptions) { o.BlockSize *= 2 },
		func(o *image.ManifestOptions) { o.Layout++ },
	} {
		o := opts
		change(&o)
		seen[Key(store.Hash{1}, o)] = true
	}
	seen[Key(store.Hash{2}, opts)] = true
	if len(seen) != 5 {
		t.Errorf("5 files have %d names", len(seen))
	}
	opts.Owner = "1:1" // a file's owner is the image's
	if got, want := Key(store.Hash{1}, opts), "2faea4ec50071529cc336888353a3eac3c053ea5db23522af145b549339584b0"; image.ManifestVersion != 2 || got != want {
		t.Errorf("in version %d the name is %s", image.ManifestVersion, got)
	}
}
