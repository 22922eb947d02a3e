package ext4

import "encoding/binary"

// digestTable finds the inode that already holds a file, by the digest of
// what makes the file what it is. It takes about 32 bytes a file: a digest,
// an inode number and a slot in a table with open addressing.
type digestTable struct {
	digests list[digest]
	slots   []uint32 // index into digests, plus 1; 0 is free
}

type digest struct {
	sum contentKey
	ino uint32
}

// find returns the inode number kept for sum, to be read or replaced. It adds
// one, 0, if there is none.
func (t *digestTable) find(sum *contentKey) *uint32 {
	if 4*t.digests.n >= 3*len(t.slots) {
		t.grow()
	}
	slot := t.slot(sum)
	if t.slots[slot] == 0 {
		t.slots[slot] = uint32(t.digests.add(digest{sum: *sum})) + 1
	}
	return &t.digests.at(int(t.slots[slot] - 1)).ino
}

// slot returns where sum is, or where it should go.
func (t *digestTable) slot(sum *contentKey) int {
	mask := len(t.slots) - 1
	slot := int(binary.LittleEndian.Uint32(sum[:])) & mask
	for t.slots[slot] != 0 && t.digests.at(int(t.slots[slot]-1)).sum != *sum {
		slot = (slot + 1) & mask
	}
	return slot
}

func (t *digestTable) grow() {
	t.slots = make([]uint32, max(1024, 2*len(t.slots)))
	for i := range t.digests.n {
		t.slots[t.slot(&t.digests.at(i).sum)] = uint32(i) + 1
	}
}
