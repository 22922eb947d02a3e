package nar_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

func TestWriterRefuses(t *testing.T) {
	root := directory("")
	deep := []file{root}
	for i := 1; i < nar.MaxDepth; i++ {
		deep = append(deep, directory(strings.Repeat("d/", i-1)+"d"))
	}
	tests := []struct {
		name  string
		files []file
		want  string
	}{
		{"nothing", nil, "no entry"},
		{"no root", []file{directory("a")}, "must be the root"},
		{"two roots", []file{root, root}, "second root"},
		{"out of order", []file{root, regular("b", ""), regular("a", "")}, `"a" after "b"`},
		{"twice", []file{root, regular("a", ""), regular("a", "")}, `"a" after "a"`},
		{"left too early", []file{root, directory("a"), regular("b", ""), regular("a/x", "")}, "depth first"},
		{"no parent", []file{root, regular("a/x", "")}, "depth first"},
		{"below a file", []file{root, regular("a", ""), regular("a/x", "")}, "depth first"},
		{"below the root file", []file{regular("", ""), regular("x", "")}, "depth first"},
		{"dot dot", []file{root, regular("..", "")}, `file name ".."`},
		{"absolute", []file{root, regular("/etc", "")}, "absolute"},
		{"two slashes", []file{root, directory("a"), regular("a//b", "")}, "depth first"},
		{"trailing slash", []file{root, directory("a"), regular("a/", "")}, "empty file name"},
		{"NUL", []file{root, regular("a\x00", "")}, "NUL"},
		{"empty target", []file{symlink("", "")}, "empty symlink target"},
		{"unknown kind", []file{{Entry: store.Entry{}}}, "unknown kind"},
		{"negative size", []file{{Entry: store.Entry{Kind: store.Regular, Size: -1}}}, "-1 bytes"},
		{"too many bytes", []file{{store.Entry{Kind: store.Regular, Size: 3}, "four"}}, nar.ErrTooLong.Error()},
		{"too few bytes", []file{root, {store.Entry{Path: "a", Kind: store.Regular, Size: 5}, "four"}, regular("b", "")}, "1 bytes of the file are missing"},
		{"too few bytes at the end", []file{{store.Entry{Kind: store.Regular, Size: 5}, "four"}}, "1 bytes of the file are missing"},
		{"bytes of a directory", []file{{root.Entry, "x"}}, nar.ErrTooLong.Error()},
		{"too deep", append(deep, regular(strings.Repeat("d/", nar.MaxDepth-1)+"f", "")), "more than 64 levels"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := nar.NewWriter(io.Discard)
			var err error
			for i := range test.files {
				if err = w.Create(&test.files[i].Entry); err != nil {
					break
				}
				if _, err = io.WriteString(w, test.files[i].data); err != nil {
					break
				}
			}
			closed := w.Close()
			if err != nil && closed != err {
				t.Errorf("Close said %v after %v", closed, err)
			}
			if closed == nil || !strings.Contains(closed.Error(), test.want) {
				t.Errorf("error %v, want one with %q", closed, test.want)
			}
			if again := w.Create(&root.Entry); again != closed {
				t.Errorf("then Create said %v", again)
			}
		})
	}
}

func TestWriterClosed(t *testing.T) {
	w := nar.NewWriter(io.Discard)
	root := directory("")
	if err := w.Create(&root.Entry); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if err := w.Create(&root.Entry); err == nil {
		t.Error("an entry was created after Close")
	}
}

// A full disk is an error, at the latest from Close.
func TestWriterFullDisk(t *testing.T) {
	full := errors.New("no space left on device")
	for _, room := range []int{0, 10, 100_000} {
		w := nar.NewWriter(&disk{room, full})
		f := regular("", strings.Repeat("x", 200_000))
		err := w.Create(&f.Entry)
		if err == nil {
			_, err = io.WriteString(w, f.data)
		}
		if closed := w.Close(); !errors.Is(closed, full) || err != nil && !errors.Is(err, full) {
			t.Errorf("room for %d bytes: %v, %v", room, err, closed)
		}
	}
}

// disk takes a number of bytes and no more.
type disk struct {
	room int
	full error
}

func (d *disk) Write(p []byte) (int, error) {
	n := min(len(p), d.room)
	d.room -= n
	if n < len(p) {
		return n, d.full
	}
	return n, nil
}

func BenchmarkWriter(b *testing.B) {
	files := []file{directory("")}
	for i := range 1000 {
		files = append(files, regular(string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)}), strings.Repeat("line\n", i%200)))
	}
	b.SetBytes(int64(len(archive(b, files))))
	b.ReportAllocs()
	data := []byte(strings.Repeat("line\n", 200))
	for b.Loop() {
		w := nar.NewWriter(io.Discard)
		for i := range files {
			if err := w.Create(&files[i].Entry); err != nil {
				b.Fatal(err)
			}
			if _, err := w.Write(data[:files[i].Size]); err != nil {
				b.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
