package squashfs

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"bigdisk/image"
)

// backEnd performs the steps in order. It alone writes to the image.
type backEnd struct {
	ctx  context.Context
	opts Options
	out  output
	free func(*block) // gives a block's buffers back

	fragments []fragment
	inodes    inodeTable
	listings  dirTable
	gidIndex  uint16
	spills    [2]*spill // the compressed inode and directory tables
	comp      compressor

	unitStart int64
	units     []unitData
	root      ref
	size      int64
}

func newBackEnd(f File, opts Options) (*backEnd, error) {
	b := &backEnd{opts: opts, out: output{f: f, pos: superSize}}
	var err error
	if b.comp, err = opts.Compression.newCompressor(metadataSize); err != nil {
		return nil, err
	}
	for i := range b.spills {
		b.spills[i] = &spill{dir: opts.ScratchDir}
	}
	b.inodes.meta = newMetaWriter(b.spills[0], b.comp)
	b.listings.meta = newMetaWriter(b.spills[1], b.comp)
	if opts.GID != opts.UID {
		b.gidIndex = 1
	}
	if o := opts.Compression.options(); o != nil {
		header := binary.LittleEndian.AppendUint16(nil, uint16(len(o))|metaStored)
		if err := b.out.write(append(header, o...)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *backEnd) run(steps <-chan step) error {
	for {
		select {
		case s, ok := <-steps:
			if !ok {
				return nil
			}
			if err := s.commit(b); err != nil {
				return err
			}
			if d, ok := s.(*directory); ok {
				b.root = d.ref // the root comes last
			}
		case <-b.ctx.Done():
			return context.Cause(b.ctx)
		}
	}
}

// unitStart notes where the data of a unit begins.
type unitStart struct{}

func (unitStart) commit(b *backEnd) error {
	b.unitStart = b.out.pos
	b.out.startSum()
	return nil
}

// unitEnd ends a unit, whose files have these sums.
type unitEnd image.FileSums

func (u unitEnd) commit(b *backEnd) error {
	sum, err := b.out.endSum(image.FileSums(u))
	var d unitData
	if n := b.out.pos - b.unitStart; n > 0 {
		d.extents = []image.Extent{{Offset: b.unitStart, Length: n}}
	}
	if len(u) > 0 {
		d.sum = sum
	}
	b.units = append(b.units, d)
	return err
}

// unitData is what lies in the image for one unit.
type unitData struct {
	extents []image.Extent
	sum     *image.DataSum
}

// metadata is where all but the units' data lies.
func (b *backEnd) metadata() []image.Extent {
	var rest []image.Extent
	var at int64
	for _, u := range b.units {
		for _, x := range u.extents {
			if x.Offset > at {
				rest = append(rest, image.Extent{Offset: at, Length: x.Offset - at})
			}
			at = x.Offset + x.Length
		}
	}
	return append(rest, image.Extent{Offset: at, Length: b.size - at})
}

// rewind undoes the blocks of a long file that turned out to be known.
type rewind struct{ file *location }

func (r rewind) commit(b *backEnd) error {
	if !r.file.blocks.written {
		return nil // nothing but zeros
	}
	return b.out.rewind(r.file.start)
}

// finish writes the tables behind the data, and then the superblock.
func (b *backEnd) finish(inodes uint32) error {
	super := superblock{
		Inodes: inodes, MkfsTime: mtime,
		BlockSize: uint32(b.opts.BlockSize), BlockLog: uint16(bits.TrailingZeros(uint(b.opts.BlockSize))),
		Fragments: uint32(len(b.fragments)), Compression: b.opts.Compression.id(),
		Flags:     flagDuplicates | flagExportable | flagNoXattrs,
		RootInode: uint64(b.root), XattrTable: noTable,
	}
	if b.opts.Compression.options() != nil {
		super.Flags |= flagCompOptions
	}
	err := b.writeTables(&super)
	if err == nil {
		super.BytesUsed = uint64(b.out.pos)
		err = b.out.flush()
	}
	if err == nil {
		b.size = (b.out.pos + devBlock - 1) / devBlock * devBlock
		err = b.out.f.Truncate(b.out.pos)
	}
	if err == nil {
		err = b.out.f.Truncate(b.size)
	}
	if err == nil {
		err = b.out.writeAt(super.encode(), 0)
	}
	return err
}

func (b *backEnd) writeTables(super *superblock) error {
	for i, meta := range []*metaWriter{b.inodes.meta, b.listings.meta} {
		meta.flush()
		if meta.err != nil {
			return meta.err
		}
		at := uint64(b.out.pos)
		if i == 0 {
			super.InodeTable = at
		} else {
			super.DirectoryTable = at
		}
		if err := b.spills[i].copyTo(&b.out); err != nil {
			return err
		}
	}
	le := binary.LittleEndian
	var err error
	super.FragmentTable, err = b.writeTable(len(b.fragments), func(p []byte, i int) []byte {
		p = le.AppendUint64(p, uint64(b.fragments[i].start))
		p = le.AppendUint32(p, b.fragments[i].size)
		return le.AppendUint32(p, 0)
	})
	if err != nil {
		return fmt.Errorf("fragment table: %w", err)
	}
	super.LookupTable, err = b.writeTable(len(b.inodes.places), func(p []byte, i int) []byte {
		return le.AppendUint64(p, uint64(b.inodes.places[i]))
	})
	if err != nil {
		return fmt.Errorf("export table: %w", err)
	}
	ids := []uint32{b.opts.UID, b.opts.GID}[:1+b.gidIndex]
	super.IDs = uint16(len(ids))
	super.IDTable, err = b.writeTable(len(ids), func(p []byte, i int) []byte {
		return le.AppendUint32(p, ids[i])
	})
	if err != nil {
		return fmt.Errorf("id table: %w", err)
	}
	return nil
}

// writeTable writes n records into metadata blocks and behind them the list of
// where these blocks lie. It returns where that list lies.
func (b *backEnd) writeTable(n int, record func(p []byte, i int) []byte) (uint64, error) {
	start := b.out.pos
	meta := newMetaWriter(&b.out, b.comp)
	var list, one []byte
	for i := range n {
		if block, offset := meta.pos(); offset == 0 {
			list = binary.LittleEndian.AppendUint64(list, uint64(start+block))
		}
		one = record(one[:0], i)
		meta.write(one)
	}
	meta.flush()
	if meta.err != nil {
		return 0, meta.err
	}
	at := uint64(b.out.pos)
	return at, b.out.write(list)
}

func (b *backEnd) close() {
	for _, s := range b.spills {
		s.close()
	}
}
