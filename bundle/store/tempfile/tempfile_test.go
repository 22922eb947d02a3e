package tempfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestNew(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for _, in := range []string{dir, ""} {
		f, err := New(in)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString("kept"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4)
		if _, err := f.ReadAt(got, 0); err != nil || string(got) != "kept" {
			t.Errorf("%q came back (%v)", got, err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the directory holds %v (%v)", left, err)
	}
	if _, err := New(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a directory that is not there is accepted")
	}
}
