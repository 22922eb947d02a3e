package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"bigdisk/image"
	"bigdisk/image/directio"
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
	writer *directio.Writer
	base   int64
	mu     sync.Mutex
	behind image.Extent // what was written last, and the disk has not been told of
}

func newDisk(f *os.File, o BuildOptions) *disk {
	d := &disk{file: f, writer: directio.New(f)}
	if o.Partition == GPT {
		d.base = gpt.Align
	}
	return d
}

// WriteAt, ReadAt and Truncate are those of a file with nothing but the
// filesystem.
func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	n, past, err := d.writer.WriteAt(p, d.base+at)
	if !past {
		d.Wrote(at, int64(n))
	}
	return n, err
}

// Close lets the file go, which stays open.
func (d *disk) Close() error { return d.writer.Close() }

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

// InFile lets data be copied into the file by the kernel.
func (d *disk) InFile() (*os.File, int64) { return d.file, d.base }

// Direct says that large writes are better than copies through the page cache.
func (d *disk) Direct() bool { return d.writer.Direct() }

// enclose puts a hash tree behind the filesystem that m describes, and a
// partition table around both, as far as they were asked for, and describes
// that too.
func (b *builder) enclose(ctx context.Context, d *disk, m *image.Manifest) error {
	if !b.opts.Verity && b.opts.Partition == "" {
		return nil
	}
	seed, used := m.Image.SHA256, m.Image.Size
	m.Shift(d.base)
	if b.opts.Verity {
		stage := b.opts.Progress.Stage("protect", progress.Bytes, used)
		tree, err := verity.Append(ctx, d, used, verity.Options{Seed: seed, Workers: b.opts.Jobs})
		stage.Finish()
		if err != nil {
			return fmt.Errorf("hash tree of %s: %w", b.opts.Output, err)
		}
		m.Verity = &image.ManifestVerity{RootHash: tree.RootHash, Offset: tree.Offset, Salt: tree.SaltHex(), UUID: tree.UUIDString()}
		m.AddMetadata(image.Extent{Offset: d.base + tree.Offset, Length: tree.Size})
		used = tree.Offset + tree.Size
	}
	if err := b.round(d, m, used, seed); err != nil {
		return err
	}
	return b.digest(ctx, d.file, m)
}

// round gives the file its length, and the partition table if there is one.
func (b *builder) round(d *disk, m *image.Manifest, used int64, seed image.HexSHA256) error {
	size := used
	if b.opts.Format == Ext4 {
		size = (used + diskSize - 1) / diskSize * diskSize
	}
	if d.base > 0 {
		size = gpt.DiskSize(used, diskSize)
		m.Image.Part = &image.Extent{Offset: d.base, Length: (used + gpt.Align - 1) / gpt.Align * gpt.Align}
		m.AddMetadata(image.Extent{Length: d.base}, image.Extent{Offset: size - gpt.Align, Length: gpt.Align})
	}
	m.Image.Size = size
	if err := d.file.Truncate(size); err != nil {
		return err
	}
	if m.Image.Part == nil {
		return nil
	}
	if err := gpt.Write(d.file, used, size, gpt.Options{Name: m.Image.Label, Seed: seed}); err != nil {
		return fmt.Errorf("partition table of %s: %w", b.opts.Output, err)
	}
	return nil
}

// digest hashes what is not store paths' data in the image in r, so that m
// stands for all of it.
func (b *builder) digest(ctx context.Context, r io.ReaderAt, m *image.Manifest) (err error) {
	meta := &m.Image.Metadata
	stage := b.opts.Progress.Stage("finish", progress.Bytes, meta.Bytes())
	defer stage.Finish()
	meta.SHA256, err = image.HashExtents(ctx, r, meta.Extents, stage.Add)
	if err != nil {
		return fmt.Errorf("read the image again: %w", err)
	}
	m.Image.SHA256 = m.Digest()
	return nil
}

// errUnsound is wrapped by the error of a build whose image did not pass
// [BuildOptions.Verify].
var errUnsound = errors.New("the image is not sound")

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
		return fmt.Errorf("%s: %w: errors: %d, the first: %s", b.opts.Output, errUnsound, report.Errors, report.Findings[0])
	}
	return nil
}
