package squashfs

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"bigdisk/bundle/store/tempfile"
)

// spillAfter is how many bytes a spill keeps in memory.
const spillAfter = 8 << 20

// spill holds bytes that are written once and read back once: in memory while
// they are few, then in a temporary file that has no name.
type spill struct {
	dir  string
	mem  bytes.Buffer
	file *os.File
	size int64
}

func (s *spill) Write(p []byte) (int, error) {
	if s.mem.Len()+len(p) > spillAfter {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	s.size += int64(len(p))
	return s.mem.Write(p)
}

func (s *spill) toFile() error {
	if s.file == nil {
		f, err := tempfile.New(s.dir)
		if err != nil {
			return fmt.Errorf("metadata: %w", err)
		}
		s.file = f
	}
	if _, err := s.mem.WriteTo(s.file); err != nil {
		return fmt.Errorf("metadata: %w", err)
	}
	return nil
}

// copyTo writes everything to w.
func (s *spill) copyTo(w io.Writer) error {
	if s.file != nil {
		if _, err := io.Copy(w, io.NewSectionReader(s.file, 0, s.size-int64(s.mem.Len()))); err != nil {
			return err
		}
	}
	_, err := w.Write(s.mem.Bytes())
	return err
}

func (s *spill) close() {
	if s.file != nil {
		s.file.Close() // nothing in it is needed any more
	}
}
