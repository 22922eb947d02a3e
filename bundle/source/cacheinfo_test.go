package source

import (
	"bytes"
	"errors"
	"io"
	"math"
	"testing"

	"github.com/ulikunitz/xz"
)

func FuzzParseCacheInfo(f *testing.F) {
	for _, s := range []string{
		"", "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n", "Priority:-1", "Other: x\n", "no colon", "Priority: x", ":", "StoreDir: /gnu\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		info, err := ParseCacheInfo(text)
		if (info == nil) == (err == nil) || err != nil && !errors.Is(err, ErrCacheInfo) {
			t.Errorf("got %v, %v", info, err)
		}
		if err == nil {
			info.check()
		}
	})
}

func TestParseCacheInfo(t *testing.T) {
	info, err := ParseCacheInfo([]byte("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"))
	if err != nil || *info != (CacheInfo{"/nix/store", 40, true}) {
		t.Errorf("got %+v, %v", info, err)
	}
	if info, err := ParseCacheInfo(nil); err != nil || info.Priority != DefaultPriority || info.check() != nil {
		t.Errorf("nothing is %+v, %v", info, err)
	}
}

// What is read of an xz header is what the writer said.
func TestXzDictionary(t *testing.T) {
	for _, size := range []int{1 << 12, 1 << 20, 3 << 20, 8 << 20, 64 << 20} {
		var b bytes.Buffer
		w, err := xz.WriterConfig{DictCap: size}.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "text")
		w.Close()
		if got := xzDictionary(b.Bytes()); got != uint64(size) {
			t.Errorf("dictionary of %d is read as %d", size, got)
		}
	}
	if got := xzDictSize(40); got != math.MaxUint32 {
		t.Errorf("the largest dictionary is read as %d", got)
	}
}

func FuzzXzDictionary(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x03\xc1\x80\x80\x04\x80\x80\x04\x04\x00!\x01\x16"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, head []byte) {
		if got := xzDictionary(head); got > math.MaxUint32 {
			t.Errorf("a dictionary of %d", got)
		}
	})
}
