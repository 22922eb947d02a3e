package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"bigdisk/image/imagetest"
)

// disk is a file in memory.
type disk struct {
	mu sync.Mutex
	b  []byte
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.NewReader(d.b).ReadAt(p, off)
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if need := int(off) + len(p); need > len(d.b) {
		d.b = append(d.b, make([]byte, need-len(d.b))...)
	}
	return copy(d.b[off:], p), nil
}

func randomDisk(n int) *disk {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return &disk{b: b}
}

var sizes = []int{1, 4096, 4097, 2 * 4096, 128 * 4096, 129*4096 - 5, 300 * 4096, 20000 * 4096}

func TestAppendMatchesNaive(t *testing.T) {
	for _, n := range sizes {
		d := randomDisk(n)
		if n > 5*4096 {
			clear(d.b[4096 : 3*4096]) // blocks of zeros take another way
		}
		want := naiveRoot(d.b, newTree(int64(n), [32]byte{7}).Salt)
		tree, err := Append(context.Background(), d, int64(n), Options{Seed: [32]byte{7}, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		if tree.RootHash != want {
			t.Errorf("%d bytes: root hash %x, want %x", n, tree.RootHash, want)
		}
		if end := tree.Offset + tree.Size; end != int64(len(d.b)) {
			t.Errorf("%d bytes: the tree ends at %d of %d", n, end, len(d.b))
		}
		if err := Verify(context.Background(), d, tree, 2); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// naiveRoot builds the tree in memory, level by level.
func naiveRoot(data []byte, salt [SaltSize]byte) [32]byte {
	level := append(bytes.Clone(data), make([]byte, -len(data)&4095)...)
	for {
		var next []byte
		for i := 0; i < len(level); i += 4096 {
			h := sha256.New()
			h.Write(salt[:])
			h.Write(level[i : i+4096])
			next = h.Sum(next)
		}
		if len(next) == 32 {
			return [32]byte(next)
		}
		level = append(next, make([]byte, -len(next)&4095)...)
	}
}

func TestSameTreeForAnyWorkers(t *testing.T) {
	var first []byte
	for _, workers := range []int{0, 1, 8} {
		d := randomDisk(3000 * 4096)
		if _, err := Append(context.Background(), d, int64(len(d.b)), Options{Workers: workers}); err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = d.b
		}
		if !bytes.Equal(first, d.b) {
			t.Errorf("%d workers give other bytes", workers)
		}
	}
}

func TestVerifyFindsEveryFlip(t *testing.T) {
	d := randomDisk(700 * 4096)
	tree, err := Append(context.Background(), d, int64(len(d.b)), Options{Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		at := r.IntN(len(d.b))
		if i%3 == 0 { // superblock and tree
			at = int(tree.Offset) + r.IntN(len(d.b)-int(tree.Offset))
		}
		if off := at - int(tree.Offset); off >= 512 && off < 4096 {
			continue // behind the superblock nothing is read
		}
		bit := byte(1) << r.IntN(8)
		d.b[at] ^= bit
		if err := Verify(context.Background(), d, tree, 2); !errors.Is(err, ErrMismatch) {
			t.Fatalf("byte %d flipped: %v", at, err)
		}
		d.b[at] ^= bit
	}
}

func TestVeritysetupAccepts(t *testing.T) {
	imagetest.NeedTools(t, "veritysetup")
	for _, n := range sizes {
		name := filepath.Join(t.TempDir(), "image")
		d := randomDisk(n)
		tree, err := Append(context.Background(), d, int64(n), Options{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, d.b, 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", name, name, hex.EncodeToString(tree.RootHash[:]), fmt.Sprintf("--hash-offset=%d", tree.Offset)}
		if out, err := exec.Command("veritysetup", args...).CombinedOutput(); err != nil {
			t.Errorf("%d bytes: %v: %s", n, err, out)
		}
		out, err := exec.Command("veritysetup", "dump", name, fmt.Sprintf("--hash-offset=%d", tree.Offset)).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(tree.UUIDString())) || !bytes.Contains(out, []byte(tree.SaltHex())) {
			t.Errorf("%d bytes: dump: %v: %s", n, err, out)
		}
		d.b[n/2] ^= 4
		if err := os.WriteFile(name, d.b, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("veritysetup", args...).CombinedOutput(); err == nil {
			t.Errorf("%d bytes: veritysetup takes a flipped byte: %s", n, out)
		}
	}
}

func TestReadRefusesOthers(t *testing.T) {
	d := randomDisk(8 * 4096)
	tree, err := Append(context.Background(), d, int64(len(d.b)), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(d, tree.Offset); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at int64
		to byte
	}{{0, 'V'}, {8, 2}, {12, 0}, {32, 'x'}, {65, 0}, {69, 0}, {72, 9}, {80, 1}} {
		old := d.b[tree.Offset+c.at]
		d.b[tree.Offset+c.at] = c.to
		if _, err := Read(d, tree.Offset); err == nil {
			t.Errorf("superblock with byte %d changed to %#x was read", c.at, c.to)
		}
		d.b[tree.Offset+c.at] = old
	}
	for _, off := range []int64{-4096, 1, int64(len(d.b)), int64(len(d.b)) + 4096} {
		if _, err := Read(d, off); err == nil {
			t.Errorf("a superblock was read at %d", off)
		}
	}
}

func FuzzRead(f *testing.F) {
	d := randomDisk(4 * 4096)
	tree, err := Append(context.Background(), d, int64(len(d.b)), Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(d.b[tree.Offset:])
	f.Add([]byte("verity\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		all := append(make([]byte, 4096), b...)
		if tree, err := Read(&disk{b: all}, 4096); err == nil && tree.Offset != 4096 {
			t.Errorf("offset %d", tree.Offset)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	d := randomDisk(64 << 20)
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Append(context.Background(), d, 64<<20, Options{Workers: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNaive(b *testing.B) {
	d := randomDisk(64 << 20)
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		naiveRoot(d.b, [32]byte{})
	}
}

func Example() {
	d := &disk{b: bytes.Repeat([]byte("contents"), 1024)}
	seed := sha256.Sum256(d.b)
	tree, err := Append(context.Background(), d, int64(len(d.b)), Options{Seed: seed, Workers: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tree.Offset, Verify(context.Background(), d, tree, 1))
	d.b[5] ^= 1
	fmt.Println(Verify(context.Background(), d, tree, 1))
	// Output:
	// 8192 <nil>
	// the block at byte 0: does not match its dm-verity hash tree
}
