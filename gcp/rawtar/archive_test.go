package rawtar_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bigdisk/gcp/rawtar"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// mixed is an image with everything that is treated in a way of its own: text,
// noise, zeros within and across chunks, and a ragged end.
func mixed() []byte {
	image := make([]byte, 5*mib+12_345)
	noise := rand.NewChaCha8([32]byte{1})
	noise.Read(image[300_000:1_500_000])
	copy(image[1_500_000:], bytes.Repeat([]byte("/nix/store/closure reference\n"), 20_000))
	noise.Read(image[3*mib : 3*mib+1])
	noise.Read(image[5*mib:])
	return image
}

func archive(t testing.TB, image []byte, opts rawtar.Options) *rawtar.Archive {
	t.Helper()
	a, err := rawtar.New(bytes.NewReader(image), int64(len(image)), opts)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func write(t testing.TB, a *rawtar.Archive, jobs int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := a.Write(t.Context(), &b, jobs); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// checkArchive reads an archive with Go's own readers: they check the gzip
// checksum over all of it.
func checkArchive(t *testing.T, packed io.Reader, image []byte, size int64) {
	t.Helper()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	r := tar.NewReader(z)
	h, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if h.Name != "disk.raw" || h.Size != size || h.Format != tar.FormatGNU || h.Typeflag != tar.TypeReg {
		t.Errorf("the member is %+v", h)
	}
	got := make([]byte, len(image))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, image) {
		t.Error("disk.raw does not begin with the image")
	}
	if err := onlyZeros(r, size-int64(len(image))); err != nil {
		t.Errorf("padding: %v", err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the member: %v", err)
	}
	if _, err := io.Copy(io.Discard, z); err != nil {
		t.Errorf("the gzip member's end: %v", err)
	}
}

func onlyZeros(r io.Reader, want int64) error {
	buf, zeros := make([]byte, mib), make([]byte, mib)
	var n int64
	for {
		got, err := r.Read(buf)
		if n += int64(got); !bytes.Equal(buf[:got], zeros[:got]) {
			return fmt.Errorf("not zero before byte %d", n)
		}
		if err == io.EOF && n == want {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%d bytes of %d: %w", n, want, err)
		}
	}
}

func TestArchive(t *testing.T) {
	for name, image := range map[string][]byte{
		"one byte": {1}, "zeros": make([]byte, 3*mib), "mixed": mixed(), "text": bytes.Repeat([]byte("text\n"), 500_000),
	} {
		t.Run(name, func(t *testing.T) {
			a := archive(t, image, rawtar.Options{PartSize: mib})
			packed := write(t, a, 3)
			checkArchive(t, bytes.NewReader(packed), image, gib)
			if most := len(image) + len(image)/500 + 2*mib; len(packed) > most {
				t.Errorf("%d bytes for an image of %d", len(packed), len(image))
			}
			if a.Size() != gib {
				t.Errorf("disk.raw has %d bytes", a.Size())
			}
		})
	}
}

// Whoever makes the parts, in whatever order, the bytes are the same; and a
// hole is as good as zeros.
func TestSameBytes(t *testing.T) {
	image := mixed()
	opts := rawtar.Options{PartSize: mib}
	want := write(t, archive(t, image, opts), 1)
	if !bytes.Equal(want, write(t, archive(t, image, opts), 7)) {
		t.Error("seven jobs give other bytes than one")
	}
	a := archive(t, image, opts)
	parts, notes := make([][]byte, a.Parts()), make([]string, a.Parts())
	for i := a.Parts() - 1; i >= 0; i-- {
		var err error
		if parts[i], notes[i], err = a.Part(t.Context(), i, nil); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(want, append(bytes.Join(parts, nil), tail(t, a, notes)...)) {
		t.Error("parts made backwards give other bytes")
	}
	for name, punch := range map[string]bool{"full file": false, "file with holes": true} {
		opened := openFile(t, image, punch, opts)
		if !bytes.Equal(want, write(t, opened, 2)) {
			t.Errorf("a %s gives other bytes", name)
		}
	}
}

// tail joins the notes in two steps, as an upload does.
func tail(t *testing.T, a *rawtar.Archive, notes []string) []byte {
	t.Helper()
	first, err := a.Join(notes[:2])
	if err != nil {
		t.Fatal(err)
	}
	all, err := a.Join(append([]string{first}, notes[2:]...))
	if err != nil {
		t.Fatal(err)
	}
	end, err := a.Tail(all)
	if err != nil {
		t.Fatal(err)
	}
	return end
}

// openFile writes the image to a file, leaving out what is zero if holes is
// set.
func openFile(t *testing.T, image []byte, holes bool, opts rawtar.Options) *rawtar.Archive {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(int64(len(image))); err != nil {
		t.Fatal(err)
	}
	const block = 4096
	for off := 0; off < len(image); off += block {
		b := image[off:min(off+block, len(image))]
		if holes && len(bytes.Trim(b, "\x00")) == 0 {
			continue
		}
		if _, err := file.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	a, err := rawtar.Open(name, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestOptions(t *testing.T) {
	image := mixed()
	plain, best := archive(t, image, rawtar.Options{Level: 1}), archive(t, image, rawtar.Options{Level: 9})
	if plain.Key() == best.Key() || plain.Key() == archive(t, image, rawtar.Options{Level: 1, PartSize: mib}).Key() {
		t.Error("different options have the same key")
	}
	if a, b := len(write(t, plain, 1)), len(write(t, best, 1)); b >= a {
		t.Errorf("%d bytes at level 1, %d at level 9", a, b)
	}
	var sum int64
	small := archive(t, image, rawtar.Options{PartSize: mib})
	for i := range small.Parts() {
		sum += small.PartSize(i)
	}
	if small.Parts() != 6 || sum != int64(len(image)) {
		t.Errorf("%d parts for %d bytes of %d", small.Parts(), sum, len(image))
	}
}

func TestBadOptions(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		opts rawtar.Options
		want string
	}{
		"empty":      {0, rawtar.Options{}, "empty"},
		"negative":   {-1, rawtar.Options{}, "empty"},
		"too large":  {64<<40 + 1, rawtar.Options{}, "largest disk"},
		"odd part":   {1, rawtar.Options{PartSize: mib + 1}, "part size"},
		"large part": {1, rawtar.Options{PartSize: 2 * gib}, "part size"},
		"less part":  {1, rawtar.Options{PartSize: -mib}, "part size"},
		"level":      {1, rawtar.Options{Level: 10}, "level"},
		"less level": {1, rawtar.Options{Level: -2}, "level"},
	} {
		_, err := rawtar.New(bytes.NewReader(nil), test.size, test.opts)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := rawtar.Open(t.TempDir(), rawtar.Options{}); err == nil || !strings.Contains(err.Error(), "neither a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := rawtar.Open("/dev/null", rawtar.Options{}); err == nil || !strings.Contains(err.Error(), "neither a regular file") {
		t.Errorf("a character device: %v", err)
	}
}

// An image that is cut off while it is read is an error, and so is a part that
// there is not, or a note that is none.
func TestShortImage(t *testing.T) {
	image := mixed()
	a, err := rawtar.New(bytes.NewReader(image), int64(len(image))+1, rawtar.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Write(t.Context(), io.Discard, 2); err == nil || !strings.Contains(err.Error(), fmt.Sprint("ends at byte ", len(image))) {
		t.Errorf("a short image: %v", err)
	}
	for _, i := range []int{-1, 1} {
		if _, _, err := a.Part(t.Context(), i, nil); err == nil {
			t.Errorf("there is a part %d", i)
		}
	}
	for _, note := range []string{"", "x", "00000000", "00000000-", "00000000-0 ", "0-0", "00000000-0", "00000000--1"} {
		if _, err := a.Tail(note); err == nil {
			t.Errorf("tail for the note %q", note)
		}
	}
	if _, err := a.Join([]string{"00000000-0", "?"}); err == nil {
		t.Error("joined a note that is none")
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := archive(t, mixed(), rawtar.Options{PartSize: mib})
	if err := a.Write(ctx, io.Discard, 2); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	failing := writerFunc(func([]byte) (int, error) { return 0, os.ErrClosed })
	if err := a.Write(t.Context(), failing, 2); err != os.ErrClosed {
		t.Errorf("got %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func ExampleArchive() {
	image := strings.NewReader("an ext4 or squashfs image")
	a, err := rawtar.New(image, image.Size(), rawtar.Options{})
	if err != nil {
		log.Fatal(err)
	}
	var parts, notes = make([][]byte, a.Parts()), make([]string, a.Parts())
	for i := range parts { // in any order, at the same time
		if parts[i], notes[i], err = a.Part(context.Background(), i, nil); err != nil {
			log.Fatal(err)
		}
	}
	note, err := a.Join(notes)
	if err != nil {
		log.Fatal(err)
	}
	tail, err := a.Tail(note)
	if err != nil {
		log.Fatal(err)
	}
	packed := append(bytes.Join(parts, nil), tail...)

	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		log.Fatal(err)
	}
	h, err := tar.NewReader(z).Next()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(h.Name, h.Size, h.Format)
	// Output: disk.raw 1073741824 GNU
}
