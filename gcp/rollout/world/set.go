package world

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Set is a set of hosts. As JSON it is an object of zones with their hosts'
// names, in order, which is a third of the size of a list of IDs.
type Set map[ID]struct{}

// SetOf makes a set.
func SetOf(ids ...ID) Set {
	s := make(Set, len(ids))
	for _, id := range ids {
		s[id] = struct{}{}
	}
	return s
}

// Add puts id into the set.
func (s Set) Add(id ID) { s[id] = struct{}{} }

// Has reports whether id is in the set.
func (s Set) Has(id ID) bool { _, ok := s[id]; return ok }

// Sorted lists the set in order.
func (s Set) Sorted() []ID { return slices.Sorted(maps.Keys(s)) }

// MarshalJSON writes the set by zones.
func (s Set) MarshalJSON() ([]byte, error) {
	zones := make(map[Zone][]string)
	for id := range s {
		zones[id.Zone()] = append(zones[id.Zone()], id.Name())
	}
	for _, names := range zones {
		slices.Sort(names)
	}
	return json.Marshal(zones)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Set) UnmarshalJSON(text []byte) error {
	var zones map[Zone][]string
	if err := json.Unmarshal(text, &zones); err != nil {
		return err
	}
	set := make(Set)
	for zone, names := range zones {
		for _, name := range names {
			id := IDOf(zone.Project(), zone.Name(), name)
			if !id.Valid() {
				return fmt.Errorf("%q in zone %q is not the name of a host", name, zone)
			}
			set.Add(id)
		}
	}
	*s = set
	return nil
}
