package lock

import "hash/maphash"

// seen finds entries with the same key among the entries of a file that are
// read so far. It is a hash table with open addressing that holds their
// numbers: at most 20 bytes an entry, and strings only in the entries.
type seen struct {
	seed   maphash.Seed
	slots  []uint32 // number of an entry, from 1; 0 is free
	hashes []uint32 // of the entries
}

func newSeen() *seen {
	return &seen{seed: maphash.MakeSeed(), slots: make([]uint32, 64)}
}

// add adds the last entry, whose key is given. It returns the earlier entry
// with that key, nil if there is none.
func (s *seen) add(key string, entries []Entry) *Entry {
	if 2*len(entries) > len(s.slots) {
		s.grow()
	}
	last := &entries[len(entries)-1]
	hash := uint32(maphash.String(s.seed, key))
	s.hashes = append(s.hashes, hash)
	at := s.slot(hash)
	for s.slots[at] != 0 {
		n := s.slots[at] - 1
		if e := &entries[n]; s.hashes[n] == hash && e.ID == last.ID && e.Tag == last.Tag {
			return e
		}
		at = s.slot(uint32(at) + 1)
	}
	s.slots[at] = uint32(len(entries))
	return nil
}

// slot is where to look for a hash first.
func (s *seen) slot(hash uint32) int { return int(hash) & (len(s.slots) - 1) }

// grow doubles the table.
func (s *seen) grow() {
	s.slots = make([]uint32, 2*len(s.slots))
	for n, hash := range s.hashes {
		at := s.slot(hash)
		for s.slots[at] != 0 {
			at = s.slot(uint32(at) + 1)
		}
		s.slots[at] = uint32(n + 1)
	}
}
