package ext4

import (
	"encoding/binary"
	"fmt"
)

// superblock writes the superblock, and with it makes the image one.
func (f *finisher) superblock() error {
	sb := f.super()
	raw, err := binary.Append(nil, binary.LittleEndian, &sb)
	if err != nil {
		return fmt.Errorf("encoding the superblock: %w", err)
	}
	end := len(raw) - 4
	binary.LittleEndian.PutUint32(raw[end:], crc32c(^uint32(0), raw[:end]))
	if _, err := f.front.WriteAt(raw, superOffset); err != nil {
		return fmt.Errorf("writing the superblock: %w", err)
	}
	return nil
}

// super fills the superblock in, but for its checksum. What it leaves out is
// zero: no journal, no reserved blocks, no backups.
func (f *finisher) super() superblock {
	g := &f.geo
	free := g.blocks - g.used.blocks()
	sb := superblock{
		InodesCount:       uint32(g.inodes()),
		BlocksCountLo:     uint32(g.blocks),
		BlocksCountHi:     uint32(g.blocks >> 32),
		FreeBlocksCountLo: uint32(free),
		FreeBlocksCountHi: uint32(free >> 32),
		FreeInodesCount:   uint32(g.inodes() - f.b.inodeCount()),
		LogBlockSize:      logBlockSize,
		LogClusterSize:    logBlockSize,
		BlocksPerGroup:    blocksPerGroup,
		ClustersPerGroup:  blocksPerGroup,
		InodesPerGroup:    uint32(g.groupInodes),
		Wtime:             canonicalTime,
		MaxMntCount:       neverCheck,
		Magic:             superMagic,
		State:             stateValid,
		Errors:            errorsContinue,
		Lastcheck:         canonicalTime,
		RevLevel:          revDynamic,
		FirstIno:          firstIno,
		InodeSize:         inodeSize,
		FeatureCompat:     compatDirIndex | compatSparseSuper2,
		FeatureIncompat:   incompatFiletype | incompatExtents | incompat64Bit | incompatFlexBG,
		FeatureRoCompat: roCompatSparseSuper | roCompatLargeFile | roCompatHugeFile |
			roCompatDirNlink | roCompatExtraIsize | roCompatMetadataCsum,
		UUID:             f.uuid,
		HashSeed:         f.hashSeed,
		DefHashVersion:   hashHalfMD4,
		DescSize:         descSize,
		DefaultMountOpts: mountXattrACL,
		MkfsTime:         canonicalTime,
		MinExtraIsize:    extraIsize,
		WantExtraIsize:   extraIsize,
		Flags:            unsignedHash,
		LogGroupsPerFlex: logFlexGroups,
		ChecksumType:     checksumCRC32C,
		// ext4_calculate_overhead: superblock, descriptors, bitmaps and tables.
		OverheadClusters: uint32(1 + g.descBlocks + g.groups*(2+g.tableBlocks)),
	}
	copy(sb.VolumeName[:], f.opts.Label)
	if f.largeDir {
		sb.FeatureIncompat |= incompatLargeDir
	}
	if !f.opts.Writable {
		sb.FeatureRoCompat |= roCompatReadonly
	}
	return sb
}
