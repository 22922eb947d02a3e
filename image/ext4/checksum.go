package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// crc32c is the kernel's ext4_chksum: CRC-32C without the inversions at either
// end, so that one result can be the seed of the next.
func crc32c(seed uint32, p []byte) uint32 {
	return ^crc32.Update(^seed, castagnoli, p)
}

// crc32cUint32 goes on from seed over v as it lies on disk.
func crc32cUint32(seed, v uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	return crc32c(seed, b[:])
}

// inodeSeed is i_csum_seed: what the checksums of an inode, its extent blocks
// and its directory blocks start from. Every i_generation here is 0.
func inodeSeed(fsSeed, ino uint32) uint32 {
	return crc32cUint32(crc32cUint32(fsSeed, ino), 0)
}
