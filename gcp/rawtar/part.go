package rawtar

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"

	"bigdisk/gcp/internal/crc"
)

const (
	// chunk is the number of bytes that are told zero, compressible or not at
	// once.
	chunk = 128 << 10
)

// gzipHeader is a member's (RFC 1952): deflate, no name, no time, OS unknown.
var gzipHeader = [10]byte{0x1f, 0x8b, 8, 9: 255}

// encoders are kept for the next part, since they have large tables.
type encoders struct{ sync.Pool }

// encoder makes one part at a time.
type encoder struct {
	out     []byte // the part so far
	deflate *flate.Writer
	trial   *flate.Writer
	open    bool // something is in deflate
	storing bool // the chunk before was stored
	zeros   int64
	sum     sum
	blocks  zeroBlocks
	sample  sample
	scratch [chunk]byte
}

// Part makes part i and returns its bytes, in buf if there is room, and a note
// about them that [Archive.Join] and [Archive.Tail] want. Errors say where in
// the image.
func (a *Archive) Part(ctx context.Context, i int, buf []byte) (data []byte, note string, err error) {
	if i < 0 || i >= a.Parts() {
		return nil, "", fmt.Errorf("part %d of %d", i, a.Parts())
	}
	e, err := a.encoder()
	if err != nil {
		return nil, "", err
	}
	defer a.pool.Put(e)
	if bound := a.bound(); int64(cap(buf)) < bound {
		buf = make([]byte, 0, bound)
	}
	e.out, e.open, e.storing, e.zeros, e.sum = buf[:0], false, false, 0, sum{}
	if i == 0 {
		e.out = append(e.out, gzipHeader[:]...)
		err = e.compress(a.header)
	}
	if err == nil {
		err = a.encode(ctx, e, i)
	}
	data = e.out
	e.out = nil
	if err != nil {
		return nil, "", err
	}
	return data, e.sum.String(), nil
}

// bound is how long a part may get that does not compress.
func (a *Archive) bound() int64 {
	data := min(a.opts.PartSize, (a.size+chunk-1)/chunk*chunk)
	return data + data/chunk*storedBlocks*storedHeader + 2*gib/1000
}

func (a *Archive) encoder() (*encoder, error) {
	if e, ok := a.pool.Get().(*encoder); ok {
		return e, nil
	}
	e := &encoder{blocks: a.zeros}
	var err error
	if e.trial, err = flate.NewWriter(nil, flate.BestSpeed); err != nil {
		return nil, err
	}
	e.deflate, err = flate.NewWriter(e, a.opts.Level)
	return e, err
}

// encode adds part i's range of disk.raw.
func (a *Archive) encode(ctx context.Context, e *encoder, i int) error {
	start, end := a.span(i)
	holes := holes{file: a.file}
	for off := start; off < min(end, a.size); off += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, a.size-off)
		if holes.cover(off, n) {
			e.zeros += chunk
			continue
		}
		if e.storing && a.file != nil && n == chunk {
			if e.readStored(a.file, off) {
				continue
			}
		}
		if err := a.read(e.scratch[:n], off); err != nil {
			return err
		}
		clear(e.scratch[n:])
		if err := e.add(e.scratch[:]); err != nil {
			return err
		}
	}
	imageEnd := (min(end, a.size) + chunk - 1) / chunk * chunk
	e.zeros += end - imageEnd
	return e.finish()
}

// read fills b from the image.
func (a *Archive) read(b []byte, off int64) error {
	n, err := a.image.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("the image ends at byte %d of %d: it was cut while it was read", off+int64(n), a.size)
	}
	return fmt.Errorf("reading the image at byte %d: %w", off+int64(n), err)
}

// add appends a chunk in the way that suits it.
func (e *encoder) add(data []byte) error {
	e.storing = false
	if isZero(data) {
		e.zeros += int64(len(data))
		return nil
	}
	if err := e.flushZeros(); err != nil {
		return err
	}
	smaller, err := e.compressible(data)
	if err != nil {
		return err
	}
	if smaller {
		return e.compress(data)
	}
	if err := e.flush(); err != nil {
		return err
	}
	e.store(data)
	return nil
}

// compress appends data compressed. What follows can refer back to it.
func (e *encoder) compress(data []byte) error {
	if !e.open {
		e.deflate.Reset(e)
		e.open = true
	}
	e.sum.add(data)
	_, err := e.deflate.Write(data)
	return err
}

// flush ends what is being compressed, on a byte's boundary.
func (e *encoder) flush() error {
	if !e.open {
		return nil
	}
	e.open = false
	return e.deflate.Flush()
}

// flushZeros appends the zeros that have come together.
func (e *encoder) flushZeros() error {
	if e.zeros == 0 {
		return nil
	}
	if err := e.flush(); err != nil {
		return err
	}
	e.out = e.blocks.append(e.out, e.zeros)
	e.sum.addZeros(e.zeros)
	e.zeros = 0
	return nil
}

func (e *encoder) finish() error {
	if err := e.flushZeros(); err != nil {
		return err
	}
	return e.flush()
}

// Write takes what the compressor puts out.
func (e *encoder) Write(p []byte) (int, error) {
	e.out = append(e.out, p...)
	return len(p), nil
}

// sum is the checksum that gzip wants of bytes, and their number.
type sum struct {
	crc    uint32
	length int64
}

func (s *sum) add(data []byte) {
	s.crc = crc32.Update(s.crc, crc32.IEEETable, data)
	s.length += int64(len(data))
}

func (s *sum) addZeros(n int64) { s.join(sum{crc.Zeros(crc32.IEEE, n), n}) }

func (s *sum) join(next sum) {
	s.crc = crc.Join(crc32.IEEE, s.crc, next.crc, next.length)
	s.length += next.length
}

// String is the sum as a note.
func (s sum) String() string { return fmt.Sprintf("%08x-%x", s.crc, s.length) }

func parseSum(note string) (s sum, err error) {
	if n, err := fmt.Sscanf(note, "%08x-%x", &s.crc, &s.length); n != 2 || err != nil || s.String() != note {
		return s, fmt.Errorf("%q is not a note on a part", note)
	}
	return s, nil
}

// Join makes one note of those of parts in a row.
func (a *Archive) Join(notes []string) (string, error) {
	var all sum
	for _, note := range notes {
		s, err := parseSum(note)
		if err != nil {
			return "", err
		}
		all.join(s)
	}
	return all.String(), nil
}

// Tail returns what comes after the last part, given the joined note of all
// parts: the end of the tar archive and of the gzip member.
func (a *Archive) Tail(note string) ([]byte, error) {
	all, err := parseSum(note)
	if err != nil {
		return nil, err
	}
	if want := tarBlock + a.padded; all.length != want {
		return nil, fmt.Errorf("the parts hold %d bytes, not %d", all.length, want)
	}
	e, err := a.encoder()
	if err != nil {
		return nil, err
	}
	defer a.pool.Put(e)
	e.out, e.sum = nil, all
	e.deflate.Reset(e)
	end := make([]byte, tarRecord-(tarBlock+a.padded)%tarRecord)
	if len(end) < 2*tarBlock {
		end = append(end, make([]byte, tarRecord)...)
	}
	if err := e.compress(end); err != nil {
		return nil, err
	}
	if err := e.deflate.Close(); err != nil {
		return nil, err
	}
	tail := binary.LittleEndian.AppendUint32(e.out, e.sum.crc)
	return binary.LittleEndian.AppendUint32(tail, uint32(e.sum.length)), nil
}
