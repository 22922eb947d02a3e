package ext4

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDirHash asks debugfs what the hash of a name is. Its 4 is
// DX_HASH_HALF_MD4_UNSIGNED.
func TestDirHash(t *testing.T) {
	uuid := "00112233-4455-6677-8899-aabbccddeeff"
	seed := [4]uint32{0x33221100, 0x77665544, 0xbbaa9988, 0xffeeddcc}
	var names []string
	for n := 1; n <= 255; n++ {
		name := make([]byte, n)
		for i := range name {
			name[i] = "0123456789abcdefghijklmnopqrstuvwxyz-._+\xc3\xa4\xff\x80"[(i*i+n)%44]
		}
		name[0] = 'x' // debugfs would take a dash for an option
		names = append(names, string(name))
	}
	var script strings.Builder
	for _, name := range names {
		fmt.Fprintf(&script, "dx_hash -h 4 -s %s %s\n", uuid, name)
	}
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte(script.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	out := mustTool(t, "debugfs", "-f", path)
	for _, name := range names {
		hash, minor := dirHash([]byte(name), &seed)
		want := fmt.Sprintf("Hash of %s is 0x%x (minor 0x%x)\n", name, hash, minor)
		if !strings.Contains(out, want) {
			t.Fatalf("not %s in\n%s", want, out[:min(len(out), 2000)])
		}
	}
}

// TestIndexLevels checks the index over more leaves than a test can write.
func TestIndexLevels(t *testing.T) {
	tests := []struct{ leaves, levels, nodes int }{
		{2, 1, 0}, {dxRootLimit, 1, 0}, {dxRootLimit + 1, 2, 1},
		{dxRootLimit * dxNodeLimit, 2, dxRootLimit},
		{dxRootLimit*dxNodeLimit + 1, 3, dxRootLimit + 1 + 1},
	}
	for _, tt := range tests {
		leaves := make([]dxEntry, tt.leaves)
		for i := range leaves {
			leaves[i].hash = uint32(2 * i)
		}
		levels := indexLevels(leaves)
		if len(levels) != tt.levels {
			t.Fatalf("%d leaves: %d levels", tt.leaves, len(levels))
		}
		block := uint32(1)
		for i, level := range levels {
			for _, e := range level {
				if e.block != block {
					t.Fatalf("%d leaves: block %d, not %d", tt.leaves, e.block, block)
				}
				block++
			}
			if i > 0 && len(levels[i-1]) != int(ceilDiv(int64(len(level)), dxNodeLimit)) {
				t.Fatalf("%d leaves: %d entries over %d", tt.leaves, len(levels[i-1]), len(level))
			}
		}
	}
}

// TestContinuedHash cuts a run of equal hashes.
func TestContinuedHash(t *testing.T) {
	var a arena
	var d directory
	for i := range 40 {
		d.add(&a, uint32(i+12), fileTypeReg, fmt.Sprintf("%0255d", i))
	}
	names, _ := d.list(&a, nil)
	for i := range names {
		names[i].hash = uint32(i/20) * 10
	}
	leaves, starts := packLeaves(&a, names)
	want := []dxEntry{{hash: 0}, {hash: 0 | dxContinued}, {hash: 10 | dxContinued}}
	if fmt.Sprint(leaves) != fmt.Sprint(want) || fmt.Sprint(starts) != "[0 15 30]" {
		t.Errorf("%v at %v, not %v", leaves, starts, want)
	}
}

func BenchmarkDirHash(b *testing.B) {
	seed := [4]uint32{1, 2, 3, 4}
	name := []byte("0123456789abcdfghijklmnpqrsvwxyz-hello-2.12")
	b.SetBytes(int64(len(name)))
	for b.Loop() {
		dirHash(name, &seed)
	}
}
