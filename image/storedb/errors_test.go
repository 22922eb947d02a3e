package storedb

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"

	"golang.org/x/sys/unix"
)

// checkGone fails if dir holds anything.
func checkGone(t *testing.T, dir string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
}

func TestBadInfos(t *testing.T) {
	good := goldenInfos()
	missing := store.Path(store.Dir + "/" + strings.Repeat("9", store.DigestLen) + "-missing")
	for _, c := range []struct {
		name   string
		change func(infos []*store.PathInfo) []*store.PathInfo
		want   []string
	}{
		{"missing reference", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[1].References = append(infos[1].References, missing)
			return infos
		}, []string{string(good[1].Path), string(missing), "whole closures"}},
		{"reference to a path with the same digest", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[1].References = append(infos[1].References, infos[0].Path+"-dev")
			return infos
		}, []string{string(good[1].Path), string(good[0].Path) + "-dev"}},
		{"unsorted", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[0], infos[1] = infos[1], infos[0]
			return infos
		}, []string{string(good[0].Path), "sorted"}},
		{"twice", func(infos []*store.PathInfo) []*store.PathInfo {
			return []*store.PathInfo{infos[0], infos[0]}
		}, []string{string(good[0].Path), "twice"}},
		{"no store path", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[0].Path = "/etc/passwd"
			return infos
		}, []string{"/etc/passwd"}},
		{"no hash", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[2].NarHash = store.Hash{}
			return infos
		}, []string{string(good[2].Path), "NAR hash"}},
		{"no size", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[2].NarSize = 0
			return infos
		}, []string{string(good[2].Path), "NAR size of 0"}},
		{"bad deriver", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[1].Deriver = "unknown-deriver"
			return infos
		}, []string{string(good[1].Path), "unknown-deriver"}},
		{"signature with a space", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[1].Sigs = []string{"a:b c:d"}
			return infos
		}, []string{string(good[1].Path), "a:b c:d"}},
		{"empty signature", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[1].Sigs = []string{""}
			return infos
		}, []string{string(good[1].Path), "signature"}},
		{"content address with a newline", func(infos []*store.PathInfo) []*store.PathInfo {
			infos[2].CA = "text:\n"
			return infos
		}, []string{string(good[2].Path), "content address"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := Write(t.Context(), filepath.Join(dir, "db"), Infos(c.change(goldenInfos())), Options{})
			if err == nil {
				t.Fatal("it was written")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			checkGone(t, dir)
		})
	}
}

func TestBadSequences(t *testing.T) {
	broken := errors.New("the source broke")
	good := goldenInfos()
	// changing yields one list, then another.
	changing := func(first, then iter.Seq2[*store.PathInfo, error]) iter.Seq2[*store.PathInfo, error] {
		calls := 0
		return func(yield func(*store.PathInfo, error) bool) {
			if calls++; calls == 1 {
				first(yield)
				return
			}
			then(yield)
		}
	}
	for _, c := range []struct {
		name  string
		infos iter.Seq2[*store.PathInfo, error]
		want  string
	}{
		{"broken", seq(good[:1], broken), broken.Error()},
		{"broken later", changing(seq(good, nil), seq(good[:1], broken)), broken.Error()},
		{"fewer", changing(seq(good, nil), seq(good[:1], nil)), "3 paths were listed first, then 1"},
		{"more", changing(seq(good[:2], nil), seq(good, nil)), string(good[2].Path)},
		{"others", changing(seq(good[1:2], nil), seq(good[:1], nil)), "others"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := Write(t.Context(), filepath.Join(dir, "db"), c.infos, Options{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			checkGone(t, dir)
		})
	}
}

// A file that exists is left as it is.
func TestExists(t *testing.T) {
	name := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(name, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), name, Infos(goldenInfos()), Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v, want that it exists", err)
	}
	if data, err := os.ReadFile(name); err != nil || string(data) != "precious" {
		t.Errorf("it now holds %q (%v)", data, err)
	}
}

func TestNoTempDir(t *testing.T) {
	dir := t.TempDir()
	err := Write(t.Context(), filepath.Join(dir, "db"), Infos(goldenInfos()), Options{TempDir: filepath.Join(dir, "none")})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want that it does not exist", err)
	}
	checkGone(t, dir)
}

// Write ends soon after its context, wherever it is.
func TestCancel(t *testing.T) {
	infos := mixedInfos(5, 20_000)
	why := errors.New("somebody pressed a key")
	for _, share := range []float64{0, 0.2, 0.5, 0.8, 1} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var at time.Time
		dir := t.TempDir()
		err := Write(ctx, filepath.Join(dir, "db"), Infos(infos), Options{Progress: func(done, total int64) {
			if at.IsZero() && float64(done) >= share*float64(total) {
				at = time.Now()
				cancel(why)
			}
		}})
		if !errors.Is(err, why) {
			t.Errorf("cancelled after %.0f%%: error %v, want %v", 100*share, err, why)
		}
		if took := time.Since(at); took > time.Second {
			t.Errorf("cancelled after %.0f%%: took %s more", 100*share, took)
		}
		checkGone(t, dir)
		cancel(nil)
	}
}

const limitVariable = "STOREDB_TEST_FILE_SIZE_LIMIT_DIR"

// A file that cannot grow stands for a full disk: whichever of the two files
// meets the limit, the error says so and both are gone.
func TestFileCannotGrow(t *testing.T) {
	if dir := os.Getenv(limitVariable); dir != "" {
		underLimit(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileCannotGrow$", "-test.v")
	cmd.Env = append(os.Environ(), limitVariable+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	checkGone(t, dir)
}

func underLimit(t *testing.T, dir string) {
	infos := mixedInfos(6, 20_000)
	signal.Ignore(syscall.SIGXFSZ)
	for _, limit := range []uint64{0, 1 << 10, 100 << 10, 2 << 20, 5 << 20} {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
			t.Fatal(err)
		}
		err := Write(t.Context(), filepath.Join(dir, "db"), Infos(infos), Options{})
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("limit of %d bytes: error %v, want %v", limit, err, syscall.EFBIG)
		}
		checkGone(t, dir)
	}
}

// The disk runs full.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	imagetest.NeedRoot(t, "mount a small tmpfs")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	err := Write(t.Context(), filepath.Join(dir, "db"), Infos(mixedInfos(7, 20_000)), Options{})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v, want %v and the file's name", err, syscall.ENOSPC)
	}
	checkGone(t, dir)
}
