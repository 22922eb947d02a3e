package squashfs

import (
	"encoding/binary"

	"bigdisk/image"
)

// fileKey stands for a file's contents.
type fileKey = image.FileSum

// seenFiles knows the different files written so far and where they lie. It is
// a hash table that takes 51 bytes a file, where a Go map takes 90: open
// addressing over indices into chunks that never move.
type seenFiles struct {
	chunks [][]seenFile
	count  int
	slots  []uint32 // 1 + index of a file; 0 is free. A power of two long
}

type seenFile struct {
	key fileKey
	loc location
}

const seenChunk = 1 << 12 // files in a chunk

// next returns where the location of the next new file is kept. It stays the
// same one until add.
func (s *seenFiles) next() *location {
	if s.count == len(s.chunks)*seenChunk {
		s.chunks = append(s.chunks, make([]seenFile, seenChunk))
	}
	return &s.at(s.count).loc
}

func (s *seenFiles) at(i int) *seenFile { return &s.chunks[i/seenChunk][i%seenChunk] }

// find returns the location of a file that was added, or nil.
func (s *seenFiles) find(key fileKey) *location {
	if i := s.slot(key); len(s.slots) > 0 && s.slots[i] != 0 {
		return &s.at(int(s.slots[i] - 1)).loc
	}
	return nil
}

// add makes the location that next returned known under key, which is not yet.
func (s *seenFiles) add(key fileKey) {
	if s.count+1 > len(s.slots)/4*3 {
		s.grow()
	}
	s.at(s.count).key = key
	s.count++
	s.slots[s.slot(key)] = uint32(s.count)
}

// abandon gives the location that next returned up: blocks on their way still
// point to it, so it must not be used again.
func (s *seenFiles) abandon() { s.count++ }

// slot returns where key is, or where it belongs. A digest needs no hashing.
func (s *seenFiles) slot(key fileKey) int {
	mask := len(s.slots) - 1
	i := int(binary.LittleEndian.Uint64(key[:])) & mask
	for mask > 0 && s.slots[i] != 0 && s.at(int(s.slots[i]-1)).key != key {
		i = (i + 1) & mask
	}
	return i
}

func (s *seenFiles) grow() {
	s.slots = make([]uint32, max(1<<10, 2*len(s.slots)))
	for i := range s.count {
		if s.at(i).key == (fileKey{}) {
			continue // abandoned
		}
		s.slots[s.slot(s.at(i).key)] = uint32(i + 1)
	}
}
