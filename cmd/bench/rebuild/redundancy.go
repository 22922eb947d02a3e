package rebuild

import (
	"bufio"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zeebo/blake3"
)

// blockSize is the size, in bytes, of the blocks that are compared.
const blockSize = 4096

// Redundancy says how often bytes are there.
type Redundancy struct {
	// Files counts files, Bytes sums their sizes, and Blocks sums these in whole
	// blocks of 4 KiB.
	Files, Bytes, Blocks int64
	// OnceFiles, OnceBytes and OnceBlocks are those of files that differ.
	OnceFiles, OnceBytes, OnceBlocks int64
	// DifferentBlocks sums the blocks that differ, the ends of files filled up
	// with zeros, and blocks of zeros left out.
	DifferentBlocks int64
}

// Measure reads the files below dir. It takes about 40 bytes of memory for each
// block.
func Measure(dir string) (*Redundancy, error) {
	r := new(Redundancy)
	m := &measure{Redundancy: r, files: make(map[[16]byte]struct{}), blocks: map[[16]byte]struct{}{sum(make([]byte, blockSize)): {}}}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return m.file(path)
	})
	r.DifferentBlocks = int64(len(m.blocks)-1) * blockSize
	return r, err
}

type measure struct {
	*Redundancy
	files, blocks map[[16]byte]struct{}
}

func sum(p []byte) (s [16]byte) {
	h := blake3.Sum256(p)
	copy(s[:], h[:])
	return s
}

func (m *measure) file(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	whole, size := blake3.New(), int64(0)
	in := bufio.NewReaderSize(f, 1<<20)
	block := make([]byte, blockSize)
	for {
		n, err := io.ReadFull(in, block)
		if err == io.EOF {
			break
		}
		if err != nil && err != io.ErrUnexpectedEOF {
			return err
		}
		whole.Write(block[:n])
		clear(block[n:])
		m.blocks[sum(block)] = struct{}{}
		size += int64(n)
	}
	blocks := (size + blockSize - 1) / blockSize * blockSize
	m.Files++
	m.Bytes += size
	m.Blocks += blocks
	var key [16]byte
	copy(key[:], whole.Sum(nil))
	if _, known := m.files[key]; !known {
		m.files[key] = struct{}{}
		m.OnceFiles++
		m.OnceBytes += size
		m.OnceBlocks += blocks
	}
	return nil
}
