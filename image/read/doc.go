// Package read opens a filesystem image, squashfs or ext4, bare or as the one
// partition of a GPT disk, and gives its tree and the bytes of its files. It
// needs neither root nor a mount, and shares no code with the packages that
// write images: what wrote an image must not be what judges it.
//
// In flows a file or a block device, out flow [Node] values, sorted directory
// listings and file contents. An [Image] may be used from many goroutines at
// once. Images are taken to be hostile: every offset, count and size is checked
// before it is believed, caches have fixed sizes, and what is wrong comes back
// as an error that wraps [ErrDamaged].
//
// # What go-diskfs does here, and what it cannot
//
// github.com/diskfs/go-diskfs reads the partition table ([Open]) and is the
// second, foreign reader that [SecondReader] holds this package against: both
// must see the same names, kinds, modes, owners and bytes. It cannot be the only reader, for
// reasons that were found in its version 1.9.4 and that no wrapper around it
// removes:
//
//   - Trees are reached by path alone, and every call parses all listings
//     on the way down again, with every inode of the last. With a million store
//     paths in /nix/store that is a million times a million entries.
//   - ext4's File.Read gives wrong bytes, without an error, for a file with a
//     hole (it reads what lies on the disk before the next extent), and nothing,
//     for ever, when the hole is at the file's end.
//   - Decompression has no limit (a zstd block of 16 KiB may become 4 GiB), sizes from
//     the disk are allocated unchecked, and a loop in an extent tree overflows the
//     stack, which no recover catches.
//   - squashfs's File.Read walks the block list from its start for every read, and a
//     new zstd decoder is made for every block.
//
// So the two formats are read here, from the documents that the kernel's
// readers follow, and go-diskfs looks at images once this package has found
// their structures sound.
package read
