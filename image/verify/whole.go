package verify

import (
	"context"
	"errors"
	"fmt"
	"io"

	"bigdisk/image"
	"bigdisk/image/verity"
)

// checkWhole checks what the manifest says of the image's bytes: length,
// SHA-256, and the dm-verity tree.
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
	progress := v.stage("image hash", length)
	defer progress.Finish()
	got, err := image.Digest(ctx, v.im.Disk(), length, want.Chunk, v.Jobs, progress.Add)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if got != want.SHA256 {
		v.errorf(StaleHash, "", "its SHA-256 is %s, but the manifest says %s", got, want.SHA256)
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
