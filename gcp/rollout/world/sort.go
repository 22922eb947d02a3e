package world

import (
	"cmp"
	"slices"
)

func sortDisks(disks []*Disk) {
	slices.SortFunc(disks, func(a, b *Disk) int {
		return cmp.Or(cmp.Compare(a.Copy, b.Copy), cmp.Compare(a.ID, b.ID))
	})
}
