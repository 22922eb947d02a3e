package verify

import (
	"context"
	"errors"
	"fmt"
	"io"

	"bigdisk/image"
	"bigdisk/image/read"
	"bigdisk/image/verity"
)

// checkWhole checks what the manifest says of the image's bytes besides store
// paths' data: length, the sum of the metadata, and the dm-verity tree.
func (v *verifier) checkWhole(ctx context.Context) error {
	if v.Manifest == nil {
		return nil
	}
	v.compareInfo()
	if err := v.checkHash(ctx); err != nil {
		return err
	}
	return v.checkVerity(ctx)
}

func (v *verifier) checkHash(ctx context.Context) error {
	want := v.Manifest.Image
	length := want.Size
	// A device may be larger than the image that was written to it.
	if length != v.info.Size && (!v.info.Device || length > v.info.Size) {
		v.errorf(StaleSize, "", "it has %d bytes, but the manifest says %d: it was made for another image", v.info.Size, length)
		if length > v.info.Size {
			return nil
		}
	}
	progress := v.stage("image hash", want.Metadata.Bytes())
	defer progress.Finish()
	got, err := image.HashExtents(ctx, v.im.Disk(), want.Metadata.Extents, progress.Add)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if got != want.Metadata.SHA256 {
		v.errorf(StaleHash, "", "its metadata has the SHA-256 %s, but the manifest says %s", got, want.Metadata.SHA256)
	}
	return nil
}

// checkPacked holds the data of a store path, as it lies compressed in a
// squashfs, against its sum. What is not compressed is summed as its NAR is
// hashed.
func (v *verifier) checkPacked(ctx context.Context, p *image.ManifestPath) error {
	if p == nil || v.info.Format != read.Squashfs || p.DataSum == nil && len(p.Data) == 0 && len(p.Sums) == 0 {
		return nil
	}
	sum, err := image.SumData(ctx, v.im.Disk(), p.Data, p.Sums, func(int64) {})
	if err != nil {
		return err
	}
	if p.DataSum == nil || sum != *p.DataSum {
		v.errorf(StaleHash, string(p.Path), "its data has the BLAKE3 %s, but the manifest says %s", sum, p.DataSum)
	}
	return nil
}

// checkVerity holds the filesystem against its hash tree.
func (v *verifier) checkVerity(ctx context.Context) error {
	m := v.Manifest.Verity
	if m == nil {
		return nil
	}
	length := v.info.Size - v.info.Offset
	if m.Offset <= 0 || m.Offset%verity.BlockSize != 0 || m.Offset > length {
		v.errorf(Verity, "", "the manifest puts its hash tree at byte %d of %d", m.Offset, length)
		return nil
	}
	r := io.NewSectionReader(v.im.Disk(), v.info.Offset, length)
	t, err := verity.Read(r, m.Offset)
	if err != nil {
		v.errorf(Verity, "", "%v", err)
		return nil
	}
	if t.SaltHex() != m.Salt || t.UUIDString() != m.UUID {
		v.errorf(Verity, "", "its hash tree has salt %s and UUID %s, but the manifest says %s and %s", t.SaltHex(), t.UUIDString(), clip(m.Salt), clip(m.UUID))
		return nil
	}
	t.RootHash = m.RootHash
	err = verity.Verify(ctx, r, t, v.Jobs)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, verity.ErrMismatch), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		v.errorf(Verity, "", "%v", err)
		return nil
	}
	return err
}
