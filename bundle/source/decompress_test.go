package source

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// bzip2Text is "hello hello hello\n" as bzip2 packs it: nothing here can.
const bzip2Text = "\x42\x5a\x68\x39\x31\x41\x59\x26\x53\x59\xe5\xb5\xf3\x09\x00\x00\x04\x51\x00\x00\x10\x40\x00\x02\x44\xa0\x00\x21\xb5\x18\x0c\x02\x90\x69\xc2\xa3\x0b\xb9\x22\x9c\x28\x48\x72\xda\xf9\x84\x80"

func packAll(tb testing.TB, text string) map[string][]byte {
	tb.Helper()
	packed := map[string][]byte{"none": []byte(text), "bzip2": []byte(bzip2Text)}
	for name, open := range map[string]func(w io.Writer) (io.WriteCloser, error){
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := open(&b)
		if err != nil {
			tb.Fatal(err)
		}
		io.WriteString(w, text)
		if err := w.Close(); err != nil {
			tb.Fatal(err)
		}
		packed[name] = b.Bytes()
	}
	return packed
}

// unpack reads up to a MiB of what data decompresses to.
func unpack(d *decoders, compression string, data []byte) (string, error) {
	dec, err := d.open(context.Background(), compression, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	defer dec.Close()
	text, err := io.ReadAll(io.LimitReader(dec, 1<<20))
	return string(text), err
}

// A decoder that has failed, or was left in the middle, is as good as new for
// the next archive; and one archive may follow another in a file.
func TestDecodersAreReused(t *testing.T) {
	const text = "hello hello hello\n"
	d := newDecoders()
	for compression, data := range packAll(t, text) {
		for range 3 {
			if got, err := unpack(d, compression, data); err != nil || got != text {
				t.Errorf("%s: %q, %v", compression, got, err)
			}
			if got, err := unpack(d, compression, append(bytes.Clone(data), data...)); err != nil || got != text+text {
				t.Errorf("%s twice: %q, %v", compression, got, err)
			}
			for n := 1; n < len(data); n++ {
				got, err := unpack(d, compression, data[:n])
				if compression != "none" && err == nil {
					t.Errorf("%s: the first %d bytes are %q", compression, n, got)
				}
			}
			if dec, err := d.open(context.Background(), compression, bytes.NewReader(data)); err != nil {
				t.Error(err)
			} else {
				dec.Close()
			}
		}
	}
	if !d.memory.TryAcquire(decoderMemory) {
		t.Error("some memory was not given back")
	}
}

func FuzzDecompress(f *testing.F) {
	names := []string{"none", "zstd", "xz", "gzip", "bzip2"}
	packed := packAll(f, "hello hello hello\n")
	for i, name := range names {
		f.Add(byte(i), packed[name])
	}
	f.Add(byte(2), []byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x00a\x00"))
	d := newDecoders()
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		unpack(d, names[int(which)%len(names)], data)
		if !d.memory.TryAcquire(decoderMemory) {
			t.Fatal("some memory was not given back")
		}
		d.memory.Release(decoderMemory)
	})
}
