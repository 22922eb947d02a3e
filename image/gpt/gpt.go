// Package gpt turns an image into a disk with one partition, for clouds and
// tools that want a partition table.
//
// In flows a file whose filesystem already starts at [Align] bytes, out flow
// the protective MBR and both partition tables around it. The tables are
// written by github.com/diskfs/go-diskfs. Nothing in them is random: the same
// seed gives the same bytes.
package gpt

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"time"
	"unicode/utf16"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/google/uuid"
)

const (
	// Align is where the partition starts, and what it and the disk are a
	// multiple of, in bytes.
	Align = 1 << 20
	// SectorSize is the logical sector's size in bytes.
	SectorSize = 512
	// MaxName is the longest partition name in UTF-16 code units.
	MaxName = 36
)

// Options are the choices of [Write].
type Options struct {
	// Name is the partition's name, of at most [MaxName] UTF-16 code units.
	Name string
	// Seed is what the GUIDs of disk and partition are derived from. Take
	// something that stands for the contents.
	Seed [sha256.Size]byte
}

// DiskSize returns the size of a disk with a partition of length bytes: room
// for the tables before and after it, rounded up to a multiple of round bytes,
// which must itself be a multiple of [Align]; less means Align.
func DiskSize(length, round int64) int64 {
	if round < Align {
		round = Align
	}
	return (Align + roundUp(length, Align) + Align + round - 1) / round * round
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

// File is what the tables are written to.
type File interface {
	io.ReaderAt
	io.WriterAt
}

// Write writes protective MBR, primary and backup table to a disk of size
// bytes (see [DiskSize]), with one partition of type Linux filesystem data for
// the length bytes from [Align] on, rounded up to a multiple of it. It touches only
// the first and last 34 sectors. The file's length is the caller's affair.
func Write(f File, length, size int64, o Options) error {
	if size < DiskSize(length, 0) || size%SectorSize != 0 {
		return fmt.Errorf("partition table: a disk of %d bytes cannot have a partition of %d", size, length)
	}
	if n := len(utf16.Encode([]rune(o.Name))); n > MaxName {
		return fmt.Errorf("partition table: the name %q has %d UTF-16 code units, over %d", o.Name, n, MaxName)
	}
	sectors := uint64(roundUp(length, Align)) / SectorSize
	table := &gpt.Table{
		LogicalSectorSize:  SectorSize,
		PhysicalSectorSize: SectorSize,
		ProtectiveMBR:      true,
		GUID:               guid("disk", o.Seed),
		Partitions: []*gpt.Partition{{
			Index: 1,
			Start: Align / SectorSize,
			End:   Align/SectorSize + sectors - 1,
			Type:  gpt.LinuxFilesystem,
			Name:  o.Name,
			GUID:  guid("partition", o.Seed),
		}},
	}
	if err := table.Write(&disk{f, size}, size); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	return completeMBR(f, size)
}

// guid derives a GUID (RFC 9562, version 8).
func guid(of string, seed [sha256.Size]byte) string {
	sum := sha256.Sum256(append([]byte("bigdisk gpt "+of+"\n"), seed[:]...))
	u := uuid.UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}

// completeMBR writes all 512 bytes of the protective MBR (UEFI 2.10, section
// 5.2.3), of which go-diskfs writes only the partitions, without CHS addresses
// and with a size that wraps around at 2 TiB.
func completeMBR(f File, size int64) error {
	b := make([]byte, SectorSize)
	copy(b[446:], []byte{0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff})
	binary.LittleEndian.PutUint32(b[454:], 1)
	binary.LittleEndian.PutUint32(b[458:], uint32(min(size/SectorSize-1, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("protective MBR: %w", err)
	}
	return nil
}

// disk gives a File the shape that go-diskfs wants. Syncing is the caller's.
type disk struct {
	File
	size int64
}

var _ backend.WritableFile = (*disk)(nil)

func (d *disk) Stat() (fs.FileInfo, error)     { return info(d.size), nil }
func (d *disk) Read([]byte) (int, error)       { return 0, backend.ErrNotSuitable }
func (d *disk) Seek(int64, int) (int64, error) { return 0, backend.ErrNotSuitable }
func (d *disk) Close() error                   { return nil }

// info is the fs.FileInfo of a disk: its size.
type info int64

func (i info) Name() string       { return "disk" }
func (i info) Size() int64        { return int64(i) }
func (i info) Mode() fs.FileMode  { return 0o600 }
func (i info) ModTime() time.Time { return time.Unix(0, 0) }
func (i info) IsDir() bool        { return false }
func (i info) Sys() any           { return nil }
