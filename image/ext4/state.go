package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"bigdisk/image"
)

// What block 0 says while an image is changed in place.
//
// Bytes 0 to 1023 are not used and 1024 to 2047 are the superblock, or while
// the image is neither the old nor the new one:
//
//	1024  updateMagic, and a sentence for people; so nothing takes it for ext4
//	2048  the begun record: what the image was before
//	3584  the switch record: what makes it the new one, in one sector
//
// The begun record is written before the superblock goes, and after that only
// blocks are written that the old filesystem has free: until there is a switch
// record, the old superblock makes the image what it was. Once there is one,
// all of the new filesystem is on the disk, but for the blocks from 0 on to the
// end of the group descriptors, of which there is a copy: from then on the
// image is bound to become the new one. Records that are there make an image
// unfinished, whatever the superblock says.
const (
	begunOffset  = 2048
	begunSize    = 1536
	switchOffset = begunOffset + begunSize
	switchSize   = 512

	updateMagic = "bigdisk in place"
	switchMagic = "bigdisk switches"
	magicLen    = 16
	updateText  = "\nThis image is being changed in place. Run bigdisk build --in-place again to finish it.\n"
)

// errNoRecord says that there is none, or only a torn one.
var errNoRecord = errors.New("no record")

// begunRecord is the image as it was before.
type begunRecord struct {
	Magic [magicLen]byte
	Super [1024]byte
}

// maxCopySpans is how many spans the copy of the front may take.
const maxCopySpans = 24

// switchRecord makes the image the new one.
type switchRecord struct {
	Magic [magicLen]byte
	// Token is the caller's: what belongs to the new image.
	Token [32]byte
	Size  int64 // of the image, in bytes
	// Front is how many blocks from 0 on there is a copy of, CopySum the CRC-32C
	// of the copy, and Copy where it lies: starts and lengths in blocks.
	Front   int64
	CopySum uint32
	Spans   uint32
	Copy    [maxCopySpans][2]uint64 // 384 bytes
	// Punch is set if what is free is to be zeros.
	Punch uint8
	// Done is set once only the copy itself has to go.
	Done uint8
}

// writeRecord writes a record, followed by its checksum, to size bytes at an
// offset.
func writeRecord(d io.WriterAt, record any, at, size int64) error {
	raw, err := binary.Append(make([]byte, 0, size), binary.LittleEndian, record)
	if err != nil {
		return fmt.Errorf("encoding a record: %w", err)
	}
	raw = binary.LittleEndian.AppendUint32(raw, crc32c(^uint32(0), raw))
	raw = append(raw, make([]byte, size-int64(len(raw)))...)
	if _, err := d.WriteAt(raw, at); err != nil {
		return fmt.Errorf("writing a record at byte %d: %w", at, err)
	}
	return nil
}

// readRecord reads a record; errNoRecord means that it is not there, whole.
func readRecord(d io.ReaderAt, record any, magic string, at, size int64) error {
	raw := make([]byte, size)
	if err := image.ReadFull(d, raw, at); err != nil {
		return err
	}
	n, err := binary.Decode(raw, binary.LittleEndian, record)
	if err != nil {
		return fmt.Errorf("decoding a record: %w", err)
	}
	if string(raw[:magicLen]) != magic || binary.LittleEndian.Uint32(raw[n:]) != crc32c(^uint32(0), raw[:n]) {
		return errNoRecord
	}
	return nil
}

// state is how far a change in place has come.
type state struct {
	begun  *begunRecord  // nil if there is none
	next   *switchRecord // nil if there is none
	marked bool          // the superblock has given way
}

// readState reads what block 0 says.
func readState(d io.ReaderAt) (s state, err error) {
	var begun begunRecord
	var sw switchRecord
	switch err := readRecord(d, &begun, updateMagic, begunOffset, begunSize); {
	case err == nil:
		s.begun = &begun
	case !errors.Is(err, errNoRecord):
		return s, err
	}
	switch err := readRecord(d, &sw, switchMagic, switchOffset, switchSize); {
	case err == nil:
		s.next = &sw
	case !errors.Is(err, errNoRecord):
		return s, err
	}
	var head [magicLen]byte
	if err := image.ReadFull(d, head[:], superOffset); err != nil {
		return s, err
	}
	s.marked = string(head[:]) == updateMagic
	return s, nil
}

// marker is what stands in the superblock's place.
func marker() []byte {
	m := make([]byte, 1024)
	copy(m, updateMagic+updateText)
	return m
}

// copySpans is where the copy of the front lies.
func (r *switchRecord) copySpans() spans {
	var s spans
	for _, c := range r.Copy[:min(r.Spans, maxCopySpans)] {
		s.add(int64(c[0]), int64(c[1]))
	}
	return s
}

// readCopy reads the copy of the front.
func (r *switchRecord) readCopy(d io.ReaderAt) ([]byte, error) {
	if r.Front <= 0 || r.Front > firstData || r.copySpans().blocks() != r.Front {
		return nil, fmt.Errorf("the switch record is about %d blocks", r.Front)
	}
	var b bytes.Buffer
	for _, s := range r.copySpans() {
		if _, err := io.Copy(&b, io.NewSectionReader(d, s.start*blockSize, s.blocks()*blockSize)); err != nil {
			return nil, err
		}
	}
	if int64(b.Len()) != r.Front*blockSize || crc32c(^uint32(0), b.Bytes()) != r.CopySum {
		return nil, errors.New("the copy of the superblock and group descriptors is damaged")
	}
	return b.Bytes(), nil
}
