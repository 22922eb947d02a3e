package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"bigdisk/image"
)

// ErrForeign is wrapped by the errors about filesystems that this package has
// not written, or that have been written to since, and that it will not change
// in place.
var ErrForeign = errors.New("not an ext4 image that can be changed in place")

// existing is the filesystem that an image holds before it is changed.
type existing struct {
	raw    []byte // the superblock
	super  superblock
	blocks int64
	seed   uint32
	free   spans // sorted, from firstData on
}

// readExisting reads the filesystem with the given superblock, and which
// blocks are free in it.
func readExisting(r io.ReaderAt, raw []byte) (*existing, error) {
	x := &existing{raw: raw}
	if _, err := binary.Decode(raw, binary.LittleEndian, &x.super); err != nil {
		return nil, err
	}
	if err := x.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	x.seed = crc32c(^uint32(0), x.super.UUID[:])
	if err := x.readFree(r); err != nil {
		return nil, err
	}
	return x, nil
}

// check wants a superblock as [finisher.super] makes it.
func (x *existing) check() error {
	sb := &x.super
	x.blocks = int64(sb.BlocksCountHi)<<32 | int64(sb.BlocksCountLo)
	end := len(x.raw) - 4
	const roCompat = roCompatSparseSuper | roCompatLargeFile | roCompatHugeFile | roCompatDirNlink | roCompatExtraIsize | roCompatMetadataCsum
	switch {
	case sb.Magic != superMagic:
		return errors.New("no ext4 superblock")
	case crc32c(^uint32(0), x.raw[:end]) != sb.Checksum:
		return errors.New("its superblock's checksum is wrong")
	case sb.FeatureCompat != compatDirIndex|compatSparseSuper2,
		sb.FeatureIncompat&^incompatLargeDir != incompatFiletype|incompatExtents|incompat64Bit|incompatFlexBG,
		sb.FeatureRoCompat&^roCompatReadonly != roCompat:
		return fmt.Errorf("it has features %#x, %#x, %#x", sb.FeatureCompat, sb.FeatureIncompat, sb.FeatureRoCompat)
	case sb.State != stateValid || sb.Wtime != canonicalTime || sb.MntCount != 0:
		return errors.New("it has been mounted read-write")
	case sb.LogBlockSize != logBlockSize || sb.BlocksPerGroup != blocksPerGroup || sb.DescSize != descSize || sb.FirstDataBlock != 0:
		return errors.New("its groups are of another kind")
	case x.blocks <= firstData || x.blocks > maxBlocks:
		return fmt.Errorf("it has %d blocks", x.blocks)
	}
	return nil
}

// readFree reads the block bitmaps.
func (x *existing) readFree(r io.ReaderAt) error {
	groups := ceilDiv(x.blocks, blocksPerGroup)
	descs, bitmap := make([]byte, blockSize), make([]byte, blockSize)
	for group := range groups {
		at := group % descsPerBlock * descSize
		if at == 0 {
			if err := image.ReadFull(r, descs, (1+group/descsPerBlock)*blockSize); err != nil {
				return fmt.Errorf("group descriptors: %w", err)
			}
		}
		raw := descs[at : at+descSize]
		var d groupDesc
		d.get(raw)
		sum := binary.LittleEndian.Uint16(raw[descChecksum:])
		if x.descSum(raw, group) != sum || d.blockBitmap <= 0 || d.blockBitmap >= x.blocks {
			return fmt.Errorf("%w: the descriptor of group %d is damaged", ErrForeign, group)
		}
		first := group * blocksPerGroup
		last := min(first+blocksPerGroup, x.blocks)
		if d.flags&groupBlockUninit != 0 {
			x.addFree(first, last)
			continue
		}
		if err := image.ReadFull(r, bitmap, d.blockBitmap*blockSize); err != nil {
			return fmt.Errorf("block bitmap of group %d: %w", group, err)
		}
		if crc32c(x.seed, bitmap) != d.blockBitmapCsum {
			return fmt.Errorf("%w: the block bitmap of group %d is damaged", ErrForeign, group)
		}
		x.scan(bitmap, first, last)
	}
	return nil
}

// descSum is a group descriptor's checksum.
func (x *existing) descSum(raw []byte, group int64) uint16 {
	sum := crc32c(crc32cUint32(x.seed, uint32(group)), raw[:descChecksum])
	sum = crc32c(sum, []byte{0, 0})
	return uint16(crc32c(sum, raw[descChecksum+2:]))
}

// scan adds the blocks whose bits are clear.
func (x *existing) scan(bitmap []byte, first, last int64) {
	for word := 0; word < len(bitmap); word += 8 {
		free := ^binary.LittleEndian.Uint64(bitmap[word:])
		at := first + int64(word)*8
		for bit := 0; free>>bit != 0; {
			bit += bits.TrailingZeros64(free >> bit)
			n := bits.TrailingZeros64(^(free >> bit))
			x.addFree(at+int64(bit), min(at+int64(bit+n), last))
			bit += n
		}
	}
}

func (x *existing) addFree(start, end int64) {
	start = max(start, firstData)
	if start < end {
		x.free.add(start, end-start)
	}
}

// get reads what put wrote, as far as it is needed.
func (d *groupDesc) get(b []byte) {
	le := binary.LittleEndian
	d.blockBitmap = int64(le.Uint32(b[0x00:])) | int64(le.Uint32(b[0x20:]))<<32
	d.flags = le.Uint16(b[0x12:])
	d.blockBitmapCsum = uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x38:]))<<16
}
