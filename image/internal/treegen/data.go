package treegen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Data is what a regular file holds, as runs of noise and of zeros, so that
// terabytes of it take no room.
type Data []Run

// Run is Len bytes: noise that depends on Seed and on the place in the file,
// or zeros if Seed is 0.
type Run struct {
	Len  int64
	Seed uint64
}

// Noise is size bytes without a zero word.
func Noise(size int64, seed uint64) Data {
	if size == 0 {
		return nil
	}
	return Data{{size, seed | 1}}
}

// Zeros is size zero bytes.
func Zeros(size int64) Data { return Data{{Len: size}} }

// Striped is n runs of noise, each of so many bytes, with as many zero bytes
// after each.
func Striped(n int, bytes int64, seed uint64) Data {
	var d Data
	for range n {
		d = append(d, Run{bytes, seed | 1}, Run{Len: bytes})
	}
	return d
}

// Size is the file's size in bytes.
func (d Data) Size() (size int64) {
	for _, r := range d {
		size += r.Len
	}
	return size
}

const chunk = 256 << 10

// WriteTo writes the file's bytes to w. If w has a method WriteZeros, the
// zeros go there.
func (d Data) WriteTo(w io.Writer) (int64, error) {
	zeroer, _ := w.(interface{ WriteZeros(n int64) error })
	buf := make([]byte, min(d.Size(), chunk))
	at := int64(0)
	for _, r := range d {
		if r.Seed == 0 && zeroer != nil {
			if err := zeroer.WriteZeros(r.Len); err != nil {
				return at, err
			}
			at += r.Len
			continue
		}
		for end := at + r.Len; at < end; {
			n, err := w.Write(r.fill(buf[:min(end-at, chunk)], at))
			at += int64(n)
			if err != nil {
				return at, err
			}
		}
	}
	return at, nil
}

// fill fills buf with the run's bytes from the file's offset on.
func (r Run) fill(buf []byte, offset int64) []byte {
	if r.Seed == 0 {
		clear(buf)
		return buf
	}
	i := 0
	for i < len(buf) {
		at := offset + int64(i)
		word := noise(r.Seed, uint64(at/8))
		if at%8 == 0 && len(buf)-i >= 8 {
			binary.LittleEndian.PutUint64(buf[i:], word)
			i += 8
			continue
		}
		buf[i] = byte(word >> (8 * (at % 8)))
		i++
	}
	return buf
}

// noise is splitmix64, without zero bytes.
func noise(seed, i uint64) uint64 {
	z := seed + i*0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z | 0x0101010101010101
}

// Check reads the bytes [from, to) of a file that should hold d.
func (d Data) Check(f io.ReaderAt, from, to int64) error {
	at := int64(0)
	for _, r := range d {
		if err := r.check(f, max(at, from), min(at+r.Len, to)); err != nil {
			return err
		}
		at += r.Len
	}
	return nil
}

// check reads the bytes [from, to) of a file, which lie in the run.
func (r Run) check(f io.ReaderAt, from, to int64) error {
	if from >= to {
		return nil
	}
	got := make([]byte, min(to-from, chunk))
	want := make([]byte, len(got))
	for from < to {
		n := min(to-from, chunk)
		if k, err := f.ReadAt(got[:n], from); k < int(n) {
			return fmt.Errorf("reading at %d: %w", from, err)
		}
		if !bytes.Equal(got[:n], r.fill(want[:n], from)) {
			return fmt.Errorf("other bytes between %d and %d", from, from+n)
		}
		from += n
	}
	return nil
}
