package read

import (
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/partition/gpt"
)

// span is a range of bytes on a disk.
type span struct{ offset, length int64 }

const sectorSize = 512

// findPartition returns where the one partition of a GPT disk lies, nil if the
// disk has no GPT.
func findPartition(r io.ReaderAt, size int64) (*span, error) {
	var head [2 * sectorSize]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return nil, nil // too short for a partition table
	}
	h := head[sectorSize:]
	if string(h[:8]) != "EFI PART" {
		return nil, nil
	}
	// go-diskfs allocates what these two say before it checks anything.
	count, entry := binary.LittleEndian.Uint32(h[80:]), binary.LittleEndian.Uint32(h[84:])
	if count > 1024 || entry != gpt.PartitionEntrySize {
		return nil, damaged("partition table with %d entries of %d bytes", count, entry)
	}
	table, err := gpt.Read(readOnly(r, size), sectorSize, sectorSize)
	if err != nil {
		return nil, damaged("partition table: %w", err)
	}
	if table.RecoveredFromBackup {
		return nil, damaged("the primary partition table is not valid; only its backup is")
	}
	return onlyPartition(table, size)
}

func onlyPartition(table *gpt.Table, size int64) (*span, error) {
	if len(table.Partitions) != 1 {
		return nil, fmt.Errorf("%w: a disk with %d partitions, where one was expected", ErrUnsupported, len(table.Partitions))
	}
	p := table.Partitions[0]
	sectors := uint64(size) / sectorSize
	if p.Start == 0 || p.End < p.Start || p.End >= sectors {
		return nil, damaged("partition from sector %d to %d on a disk of %d", p.Start, p.End, sectors)
	}
	return &span{int64(p.Start) * sectorSize, int64(p.End-p.Start+1) * sectorSize}, nil
}

// readOnly gives an image the shape that go-diskfs wants.
func readOnly(r io.ReaderAt, size int64) backend.Storage {
	return &storage{SectionReader: io.NewSectionReader(r, 0, size)}
}

// storage is a backend.Storage that cannot be written to.
type storage struct{ *io.SectionReader }

var _ backend.Storage = (*storage)(nil)

func (s *storage) Close() error                            { return nil }
func (s *storage) Sys() (*os.File, error)                  { return nil, backend.ErrNotSuitable }
func (s *storage) Writable() (backend.WritableFile, error) { return nil, backend.ErrIncorrectOpenMode }
func (s *storage) Path() string                            { return "" }
func (s *storage) Stat() (fs.FileInfo, error)              { return imageInfo(s.Size()), nil }

// imageInfo is the fs.FileInfo of a storage: its size.
type imageInfo int64

func (i imageInfo) Name() string       { return "image" }
func (i imageInfo) Size() int64        { return int64(i) }
func (i imageInfo) Mode() fs.FileMode  { return 0o444 }
func (i imageInfo) ModTime() time.Time { return time.Unix(0, 0) }
func (i imageInfo) IsDir() bool        { return false }
func (i imageInfo) Sys() any           { return nil }
