// Package ext4 writes ext4 filesystems in one sequential pass: data as it
// comes, then the metadata, and the superblock last, so that an image that was
// not finished is never taken for a filesystem.
//
// [NewWriter] makes an [image.Writer]. What it writes has extents, 64-bit block
// numbers, flex_bg, sparse_super2 without backups, checksums on all metadata,
// and an index on every directory over one block; no journal, nothing
// reserved, and nothing left for a kernel to initialise. Blocks of zeros are
// holes. Regular files with the same bytes and executable bit are one inode,
// up to 65,000 names. The same entries and options give the same bytes.
//
// [NewUpdate] turns an image of this package into another one where it lies. It
// writes new data and all metadata into blocks that are free, and can be cut off
// at any moment: there is the old image, the new one, or a mark that says that
// neither is there, from which the work can be done again or finished.
//
// The format follows the kernel's Documentation/filesystems/ext4 and
// fs/ext4/ext4.h, whose names the comments use.
package ext4
