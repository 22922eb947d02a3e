package nar_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

func TestRoundTrip(t *testing.T) {
	for name, files := range trees() {
		t.Run(name, func(t *testing.T) {
			data := archive(t, files)
			for how, r := range map[string]io.Reader{
				"whole":        bytes.NewReader(data),
				"byte by byte": iotest.OneByteReader(bytes.NewReader(data)),
				"data and EOF": iotest.DataErrReader(bytes.NewReader(data)),
			} {
				got, err := readAll(nar.NewReader(r))
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if !slices.Equal(got, files) {
					t.Errorf("%s: read %v, wrote %v", how, got, files)
				}
			}
		})
	}
}

// What Read does not take, Next skips.
func TestSkip(t *testing.T) {
	files := []file{directory(""), regular("a", strings.Repeat("a", 200_000)), regular("b", "bb"), regular("c", "c")}
	r := nar.NewReader(bytes.NewReader(archive(t, files)))
	for i := range files {
		e, err := r.Next()
		if err != nil || *e != files[i].Entry {
			t.Fatalf("entry %d: %v, %v", i, e, err)
		}
		if _, err := r.Read(make([]byte, i)); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("at the end: %v", err)
		}
	}
}

func TestRefuse(t *testing.T) {
	file := []string{"nix-archive-1", "(", "type", "regular", "contents"}
	deep := words("nix-archive-1") + strings.Repeat(words("(", "type", "directory", "entry", "(", "name", "d", "node"), nar.MaxDepth) +
		words("(", "type", "regular", "contents", "", ")")
	tests := []struct{ name, archive, want string }{
		{"nothing", "", "unexpected EOF"},
		{"something else", "PK\x03\x04 is a zip archive, not a NAR", "nix-archive-1"},
		{"another version", words("nix-archive-2", "(", "type", "regular", "contents", "", ")"), `"nix-archive-2" instead of "nix-archive-1"`},
		{"empty name", entries(""), "empty file name"},
		{"dot", entries("."), `file name "."`},
		{"dot dot", entries(".."), `file name ".."`},
		{"slash", entries("a/b"), "has a slash"},
		{"absolute", entries("/etc"), "has a slash"},
		{"NUL", entries("a\x00b"), "has a NUL"},
		{"duplicate", entries("a", "a"), `file name "a" twice`},
		{"unsorted", entries("b", "a"), `file name "a" after "b"`},
		{"prefix after longer", entries("ab", "a"), `file name "a" after "ab"`},
		{"long name", entries(strings.Repeat("x", 256)), "file name of 256 bytes"},
		{"endless name", words("nix-archive-1", "(", "type", "directory", "entry", "(", "name") + number(1<<62), "file name of 4611686018427387904 bytes"},
		{"empty target", words("nix-archive-1", "(", "type", "symlink", "target", "", ")"), "empty symlink target"},
		{"NUL in target", words("nix-archive-1", "(", "type", "symlink", "target", "a\x00", ")"), "has a NUL"},
		{"long target", words("nix-archive-1", "(", "type", "symlink", "target", strings.Repeat("x", 4096), ")"), "symlink target of 4096 bytes"},
		{"size over int64", words(file...) + number(1<<63), "file of 9223372036854775808 bytes"},
		{"size -1", words(file...) + number(1<<64-1), "file of 18446744073709551615 bytes"},
		{"absurd size", words(file...) + number(1<<60) + "abc", "unexpected EOF"},
		{"padding", words(file...) + number(1) + "x\x00\x00\x00\x00\x00\x01\x00" + words(")"), "padding that is not zero"},
		{"padding of a name", strings.Replace(entries("a"), "a\x00\x00", "a\x00\x01", 1), "padding that is not zero"},
		{"padding of a word", words("nix-archive-1") + number(1) + "(\x00\x00\x00\x00\x00\x00\x01", "padding that is not zero"},
		{"unknown type", words("nix-archive-1", "(", "type", "fifo", ")"), `"fifo" instead of regular, symlink or directory`},
		{"executable with a value", words("nix-archive-1", "(", "type", "regular", "executable", "yes", "contents", "", ")"), `"yes" instead of ""`},
		{"contents twice", words(append(file, "a", "contents", "b", ")")...), `"contents" instead of ")"`},
		{"no contents", words("nix-archive-1", "(", "type", "regular", ")"), `")" instead of "contents"`},
		{"executable directory", words("nix-archive-1", "(", "type", "directory", "executable", "", ")"), `"executable" instead of "entry" or ")"`},
		{"node missing", words("nix-archive-1", "(", "type", "directory", "entry", "(", "name", "a", ")", ")"), `")" instead of "node"`},
		{"trailing bytes", words(append(file, "", ")")...) + "x", "after the end of the archive"},
		{"two archives", strings.Repeat(words(append(file, "", ")")...), 2), "after the end of the archive"},
		{"too deep", deep, "more than 64 levels"},
		{"a word too long", words("nix-archive-1") + number(1<<40), "a string of 1099511627776 bytes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := nar.NewReader(strings.NewReader(test.archive))
			_, err := readAll(r)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if truncated := errors.Is(err, io.ErrUnexpectedEOF); truncated == errors.Is(err, nar.ErrFormat) {
				t.Errorf("%v is both or neither of ErrFormat and ErrUnexpectedEOF", err)
			}
			if _, again := r.Next(); again != err {
				t.Errorf("then Next says %v", again)
			}
			if _, again := r.Read(make([]byte, 1)); again != err {
				t.Errorf("then Read says %v", again)
			}
		})
	}
}

// An archive that is cut anywhere is found to be, and never mistaken for a
// malformed one.
func TestTruncated(t *testing.T) {
	data := archive(t, trees()["names in byte order"])
	for n := range data {
		_, err := readAll(nar.NewReader(bytes.NewReader(data[:n])))
		if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, nar.ErrFormat) {
			t.Fatalf("cut at %d of %d: %v", n, len(data), err)
		}
	}
}

// A failure of the underlying reader comes up as it is, with the place.
func TestReadError(t *testing.T) {
	data := archive(t, []file{directory(""), regular("dir", strings.Repeat("x", 1000))})
	broken := errors.New("the line is dead")
	for n := range data {
		r := io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken))
		if _, err := readAll(nar.NewReader(r)); !errors.Is(err, broken) {
			t.Fatalf("broken at %d: %v", n, err)
		}
	}
}

func TestNoProgress(t *testing.T) {
	r := io.MultiReader(strings.NewReader(words("nix-archive-1")), stuck{})
	if _, err := readAll(nar.NewReader(r)); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Errors say where in the tree they are.
func TestErrorPath(t *testing.T) {
	bad := words("nix-archive-1", "(", "type", "directory", "entry", "(", "name", "lib", "node",
		"(", "type", "directory", "entry", "(", "name", "x", "node", "(", "type", "socket")
	_, err := readAll(nar.NewReader(strings.NewReader(bad)))
	if err == nil || !strings.Contains(err.Error(), `"lib/x"`) {
		t.Error(err)
	}
}

// Nothing is allocated for an entry but its strings, whatever it claims.
func TestAllocations(t *testing.T) {
	files := []file{directory("")}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		files = append(files, regular(string(c), "data"))
	}
	data := archive(t, files)
	src := bytes.NewReader(data)
	r := nar.NewReader(src)
	count := testing.AllocsPerRun(10, func() {
		src.Reset(data)
		r.Reset(src)
		for {
			if _, err := r.Next(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
	if most := float64(len(files)); count > most {
		t.Errorf("%v allocations for %v paths", count, most)
	}
}

func TestAbsurdSizeAllocatesNothing(t *testing.T) {
	var before, after runtime.MemStats
	bad := words("nix-archive-1", "(", "type", "regular", "contents") + number(1<<62)
	runtime.ReadMemStats(&before)
	r := nar.NewReader(strings.NewReader(bad))
	e, err := r.Next()
	if err != nil || e.Size != 1<<62 {
		t.Fatalf("%v, %v", e, err)
	}
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes allocated", used)
	}
}

// FuzzReader holds that what is read, written again, is what was read: there
// is one archive of a tree, and the Reader accepts no other.
func FuzzReader(f *testing.F) {
	for _, files := range trees() {
		if data := archive(f, files); len(data) < 8<<10 {
			f.Add(data)
		}
	}
	f.Add([]byte(entries("b", "a")))
	f.Add([]byte(entries("..")))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := readAll(nar.NewReader(bytes.NewReader(data)))
		slow, slowErr := readAll(nar.NewReader(iotest.OneByteReader(bytes.NewReader(data))))
		if (err == nil) != (slowErr == nil) || !slices.Equal(files, slow) {
			t.Fatalf("at once: %v, %v; byte by byte: %v, %v", files, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		if again := archive(t, files); !bytes.Equal(again, data) {
			t.Fatalf("read %q, wrote %q", data, again)
		}
	})
}

func BenchmarkReaderSmallFiles(b *testing.B) {
	files := []file{directory("")}
	for _, d := range "abcdefghij" {
		files = append(files, directory(string(d)))
		for i := range 1000 {
			files = append(files, regular(string(d)+"/"+string([]byte{'0' + byte(i/100), '0' + byte(i/10%10), '0' + byte(i%10)})+"-header.h",
				strings.Repeat("line\n", i%200)))
		}
	}
	benchmarkReader(b, files)
}

func BenchmarkReaderLargeFiles(b *testing.B) {
	benchmarkReader(b, []file{directory(""), regular("a", strings.Repeat("x", 16<<20)), regular("b", strings.Repeat("y", 16<<20))})
}

func benchmarkReader(b *testing.B, files []file) {
	data := archive(b, files)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	buf := make([]byte, 256<<10)
	src := bytes.NewReader(data)
	r := nar.NewReader(src)
	for b.Loop() {
		src.Reset(data)
		r.Reset(src)
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			for e.Kind == store.Regular {
				if _, err := r.Read(buf); err == io.EOF {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(len(files))*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
