package ext4

import "bigdisk/image"

// contentKey is what identical files share: their sum, in which the last byte
// makes room for the executable bit. An inode has one mode.
type contentKey image.FileSum

func newContentKey(sum image.FileSum, exec bool) contentKey {
	k := contentKey(sum)
	k[len(k)-1] = 0
	if exec {
		k[len(k)-1] = 1
	}
	return k
}
