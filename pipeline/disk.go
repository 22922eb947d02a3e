package pipeline

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"bigdisk/image"
	"bigdisk/image/gpt"
	"bigdisk/image/verify"
	"bigdisk/image/verity"
	"bigdisk/pipeline/progress"
)

// GPT is the partition table that [BuildOptions.Partition] may ask for.
const GPT = "gpt"

// diskSize is what ext4 images that are more than a filesystem are rounded up
// to, as bare ones are: Compute Engine's disks come in GiB.
const diskSize = 1 << 30

// disk is the image file, in which the filesystem starts at base.
type disk struct {
	file   *os.File
	base   int64
	mu     sync.Mutex
	behind image.Extent // what was written last, and the disk has not been told of
}

func newDisk(f *os.File, o BuildOptions) *disk {
	d := &disk{file: f}
	if o.Partition == GPT {
		d.base = gpt.Align
	}
	return d
}

// WriteAt, ReadAt and Truncate are those of a file with nothing but the
// filesystem.
func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	n, err := d.file.WriteAt(p, d.base+at)
	d.Wrote(at, int64(n))
	return n, err
}

// writeBehind is how many bytes are written before the kernel is told to take
// them to the disk.
const writeBehind = 16 << 20

// Wrote has what was written taken to the disk while the build goes on, a piece
// at a time, so that there is little left to wait for in the end. Where the
// filesystem cannot, the end takes longer.
func (d *disk) Wrote(at, n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.behind.Offset+d.behind.Length != at {
		d.behind = image.Extent{Offset: at}
	}
	if d.behind.Length += n; d.behind.Length >= writeBehind {
		unix.SyncFileRange(int(d.file.Fd()), d.base+d.behind.Offset, d.behind.Length, unix.SYNC_FILE_RANGE_WRITE)
		d.behind = image.Extent{Offset: at + n}
	}
}

func (d *disk) ReadAt(p []byte, at int64) (int, error) { return d.file.ReadAt(p, d.base+at) }

func (d *disk) Truncate(size int64) error { return d.file.Truncate(d.base + size) }

// finished is what has become of the image file around its filesystem.
type finished struct {
	size   int64 // of the file
	sum    image.HexSHA256
	chunks image.ChunkSums // nil if the image is hashed as a whole
	verity *image.ManifestVerity
	part   *image.Extent
	// metadata is where the filesystem's own structures lie in the file.
	metadata *image.ManifestMetadata
}

// hashMetadata hashes parts of the filesystem in d, which starts at byte base of
// the image.
func hashMetadata(d io.ReaderAt, base int64, extents []image.Extent) (*image.ManifestMetadata, error) {
	h := sha256.New()
	m := &image.ManifestMetadata{}
	for _, x := range extents {
		if _, err := io.Copy(h, io.NewSectionReader(d, x.Offset, x.Length)); err != nil {
			return nil, err
		}
		m.Extents = append(m.Extents, image.Extent{Offset: base + x.Offset, Length: x.Length})
	}
	h.Sum(m.SHA256[:0])
	return m, nil
}

// InFile lets data be copied into the file by the kernel.
func (d *disk) InFile() (*os.File, int64) { return d.file, d.base }

// enclose puts a hash tree behind the filesystem of length bytes, and a
// partition table around both, as far as they were asked for.
func (b *builder) enclose(ctx context.Context, d *disk, length int64, label string) (*finished, error) {
	done := &finished{size: length}
	if !b.opts.Verity && b.opts.Partition == "" {
		return done, nil
	}
	stage := b.opts.Progress.Stage("protect", progress.Bytes, length)
	defer stage.Finish()
	seed, err := image.Digest(ctx, io.NewSectionReader(d, 0, length), length, image.ChunkSize, b.opts.Jobs, stage.Add)
	if err != nil {
		return nil, fmt.Errorf("read %s again: %w", b.opts.Output, err)
	}
	used := length
	if b.opts.Verity {
		tree, err := verity.Append(ctx, d, length, verity.Options{Seed: seed, Workers: b.opts.Jobs})
		if err != nil {
			return nil, fmt.Errorf("hash tree of %s: %w", b.opts.Output, err)
		}
		done.verity = &image.ManifestVerity{RootHash: tree.RootHash, Offset: tree.Offset, Salt: tree.SaltHex(), UUID: tree.UUIDString()}
		used = tree.Offset + tree.Size
	}
	return done, b.round(d, done, used, label, seed)
}

// round gives the file its length, and the partition table if there is one.
func (b *builder) round(d *disk, done *finished, used int64, label string, seed image.HexSHA256) error {
	done.size = used
	if b.opts.Format == Ext4 {
		done.size = (used + diskSize - 1) / diskSize * diskSize
	}
	if d.base > 0 {
		done.size = gpt.DiskSize(used, diskSize)
		done.part = &image.Extent{Offset: d.base, Length: (used + gpt.Align - 1) / gpt.Align * gpt.Align}
	}
	if err := d.file.Truncate(done.size); err != nil {
		return err
	}
	if done.part == nil {
		return nil
	}
	if err := gpt.Write(d.file, used, done.size, gpt.Options{Name: label, Seed: seed}); err != nil {
		return fmt.Errorf("partition table of %s: %w", b.opts.Output, err)
	}
	return nil
}

// ErrUnsound is wrapped by the error of a build whose image did not pass
// [BuildOptions.Verify].
var ErrUnsound = fmt.Errorf("the image is not sound")

// verifyImage reads the image again, before it gets its name.
func (b *builder) verifyImage(ctx context.Context, name string, m *image.Manifest) error {
	if !b.opts.Verify {
		return nil
	}
	report, err := verify.Verify(ctx, verify.Options{
		Image: name, Manifest: m, Jobs: b.opts.Jobs, ScratchDir: b.opts.ScratchDir,
		Stage: func(name string, total int64) verify.Counter {
			return b.opts.Progress.Stage("verify "+name, progress.Bytes, total)
		},
	})
	if err != nil {
		return fmt.Errorf("verify %s: %w", b.opts.Output, err)
	}
	if !report.OK() {
		return fmt.Errorf("%s: %w: errors: %d, the first: %s", b.opts.Output, ErrUnsound, report.Errors, report.Findings[0])
	}
	return nil
}
