package ext4

import (
	"encoding/binary"
	"fmt"
)

// dxEntry is struct dx_entry: from hash on, look in block.
type dxEntry struct {
	hash, block uint32
}

// indexedDirectory writes a directory as an htree: the root, which is block 0
// and struct dx_root, then the levels of struct dx_node, top down, then the
// blocks of entries, full and in the order of their hashes.
func (f *finisher) indexedDirectory(d *directory, names []named) error {
	a := &f.b.names
	for i := range names {
		names[i].hash, names[i].minor = dirHash(names[i].name(a), &f.hashSeed)
	}
	sortHashes(a, names)
	leaves, starts := packLeaves(a, names)
	levels := indexLevels(leaves)
	if len(levels) > dxMaxLevels {
		return fmt.Errorf("directory with inode number %d: %d names are more than an index holds", d.ino, len(names))
	}
	if len(levels) == dxMaxLevels {
		f.largeDir = true
	}
	seed := inodeSeed(f.seed, d.ino)
	for i, level := range levels {
		if i == 0 {
			f.indexRoot(d, level, len(levels)-1, seed)
			continue
		}
		for len(level) > 0 {
			n := min(len(level), dxNodeLimit)
			f.indexNode(level[:n], seed)
			level = level[n:]
		}
	}
	for i, start := range starts {
		end := len(names)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		w := direntWriter{block: f.meta.block()}
		for _, n := range names[start:end] {
			w.addNamed(a, n)
		}
		w.end(seed)
	}
	return nil
}

// packLeaves cuts names, ordered by their hashes, into blocks. It returns the
// lowest hash of each, which has its lowest bit set if names with that hash
// are in the block before too, and where in names each starts.
func packLeaves(a *arena, names []named) (leaves []dxEntry, starts []int) {
	room := 0
	for i, n := range names {
		size := direntSize(len(n.name(a)))
		if size > room {
			hash := n.hash
			if i > 0 && hash == names[i-1].hash {
				hash |= dxContinued
			}
			leaves = append(leaves, dxEntry{hash: hash})
			starts = append(starts, i)
			room = dirBlockRoom
		}
		room -= size
	}
	return leaves, starts
}

// indexLevels returns the entries of each level of the index over the leaves,
// the root's first, and numbers the directory's blocks.
func indexLevels(leaves []dxEntry) [][]dxEntry {
	levels := [][]dxEntry{leaves}
	for len(levels[0]) > dxRootLimit {
		below := levels[0]
		above := make([]dxEntry, 0, ceilDiv(int64(len(below)), dxNodeLimit))
		for i := 0; i < len(below); i += dxNodeLimit {
			above = append(above, dxEntry{hash: below[i].hash})
		}
		levels = append([][]dxEntry{above}, levels...)
	}
	block := uint32(1)
	for _, level := range levels {
		for i := range level {
			level[i].block = block
			block++
		}
	}
	return levels
}

// indexRoot writes struct dx_root: entries for "." and "..", of which the
// second covers the rest of the block, and the top of the index.
func (f *finisher) indexRoot(d *directory, entries []dxEntry, indirect int, seed uint32) {
	block := f.meta.block()
	w := direntWriter{block: block}
	w.add(d.ino, fileTypeDir, []byte("."))
	w.add(d.parent, fileTypeDir, []byte(".."))
	binary.LittleEndian.PutUint16(block[w.last+4:], dxDotDotSize)
	info := block[dxInfo:]
	info[4] = hashHalfMD4
	info[5] = dxInfoLen
	info[6] = byte(indirect)
	putIndex(block, dxRootStart, dxRootLimit, entries, seed)
}

// indexNode writes struct dx_node: an empty entry that covers the block, and
// a part of a lower level of the index.
func (f *finisher) indexNode(entries []dxEntry, seed uint32) {
	block := f.meta.block()
	binary.LittleEndian.PutUint16(block[4:], blockSize)
	putIndex(block, dxNodeStart, dxNodeLimit, entries, seed)
}

// putIndex writes the entries, with struct dx_countlimit in the place of the
// first one's hash, and struct dx_tail after the last place for one.
func putIndex(block []byte, at, limit int, entries []dxEntry, seed uint32) {
	le := binary.LittleEndian
	for i, e := range entries {
		le.PutUint32(block[at+i*dxEntryLen:], e.hash)
		le.PutUint32(block[at+i*dxEntryLen+4:], e.block)
	}
	le.PutUint16(block[at:], uint16(limit))
	le.PutUint16(block[at+2:], uint16(len(entries)))
	tail := block[at+limit*dxEntryLen:][:dxTailLen]
	sum := crc32c(seed, block[:at+len(entries)*dxEntryLen])
	sum = crc32c(sum, tail) // dt_reserved, and dt_checksum as 0
	le.PutUint32(tail[4:], sum)
}
