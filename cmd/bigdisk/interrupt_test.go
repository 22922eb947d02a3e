package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bigdisk/image/imagetest"
)

// TestKilled kills builds at random moments. What has the output's name is
// then the whole image or nothing, and the next build works.
func TestKilled(t *testing.T) {
	program, reference := binary(t), filepath.Join(t.TempDir(), "reference.sqsh")
	start := time.Now()
	imagetest.Command(t, program, "build", "--config", exampleConfig, "-o", reference, "--progress", "none")
	whole := time.Since(start)
	want := readBytes(t, reference)

	dir := t.TempDir()
	image := filepath.Join(dir, "x.sqsh")
	killed := 0
	for range 25 {
		if err := os.RemoveAll(image); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, "build", "--config", exampleConfig, "-o", image, "--progress", "none")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		if err := cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
			t.Fatal(err)
		}
		if cmd.Wait() != nil {
			killed++
		}
		if got, err := os.ReadFile(image); err == nil && !bytes.Equal(got, want) {
			t.Fatalf("a killed build left %d bytes that are not the image", len(got))
		}
	}
	if killed == 0 {
		t.Error("no build was killed before it ended")
	}
	imagetest.Command(t, program, "build", "--config", exampleConfig, "-o", image, "--progress", "none")
	if !bytes.Equal(readBytes(t, image), want) {
		t.Error("the build after the killed ones is another image")
	}
	if got, want := names(t, dir), []string{"x.sqsh", "x.sqsh.manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("it leaves %q, want %q: what the killed ones left is still there", got, want)
	}
}

// TestInterrupted interrupts a build that waits for a server which never
// answers: it ends soon, says so, and leaves nothing behind. The signal comes
// twice, as timeout(1) and terminals send it.
func TestInterrupted(t *testing.T) {
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			url, asked := stallingCache(t)
			dir, scratch := t.TempDir(), t.TempDir()
			cmd := exec.Command(binary(t), "build", "--config", exampleConfig, "--from", url, "-o", filepath.Join(dir, "x.sqsh"))
			cmd.Env = append(os.Environ(), "TMPDIR="+scratch)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			select {
			case <-asked:
			case <-time.After(30 * time.Second):
				t.Error("the server was never asked for a NAR")
			}
			for range 2 {
				if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
			checkEnds(t, cmd, 10*time.Second)
			if got := cmd.ProcessState.ExitCode(); got != exitFailure {
				t.Errorf("exit status %d, want %d", got, exitFailure)
			}
			if !strings.Contains(stderr.String(), "bigdisk: interrupted") {
				t.Errorf("it does not say that it was interrupted: %s", &stderr)
			}
			if left := append(names(t, dir), names(t, scratch)...); len(left) > 0 {
				t.Errorf("it left %q behind", left)
			}
		})
	}
}

// checkEnds waits for a process, and kills it if it has not ended in time.
func checkEnds(t *testing.T, cmd *exec.Cmd, within time.Duration) {
	t.Helper()
	timer := time.AfterFunc(within, func() {
		t.Errorf("still running after %v", within)
		cmd.Process.Kill()
	})
	defer timer.Stop()
	cmd.Wait()
}

// stallingCache serves the example's cache, but sends only the first bytes of
// any NAR. The channel is closed when one is asked for.
func stallingCache(t *testing.T) (url string, asked <-chan struct{}) {
	t.Helper()
	cache := filepath.Join(exampleDir, "cache")
	first, end := make(chan struct{}, 100), make(chan struct{})
	told := make(chan struct{})
	go func() {
		<-first
		close(told)
	}()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/nar/") {
			http.FileServer(http.Dir(cache)).ServeHTTP(w, r)
			return
		}
		if f, err := os.Open(filepath.Join(cache, filepath.Clean(r.URL.Path))); err == nil {
			io.CopyN(w, f, 64)
			f.Close()
		}
		w.(http.Flusher).Flush()
		first <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(end); server.Close() })
	return server.URL, told
}

// TestDiskFull builds onto a filesystem that is too small.
func TestDiskFull(t *testing.T) {
	imagetest.NeedRoot(t, "mount a small filesystem")
	small := t.TempDir()
	imagetest.Command(t, "mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", small)
	afterwards(t, "umount", small)
	out, err := exec.Command(binary(t), "build", "--config", exampleConfig, "-o", filepath.Join(small, "x.sqsh"), "--progress", "none").CombinedOutput()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitFailure {
		t.Errorf("want exit status %d: %v", exitFailure, err)
	}
	for _, want := range []string{"no space left on device", "hint: free some space"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	if left := names(t, small); len(left) > 0 {
		t.Errorf("it left %q behind", left)
	}
}

// TestUnprivileged builds as a user who owns nothing but the output's
// directory, and gets the image that root gets.
func TestUnprivileged(t *testing.T) {
	imagetest.NeedRoot(t, "become another user")
	const nobody = 65534
	dir := openDir(t)
	imagetest.Command(t, "cp", "-R", exampleDir, filepath.Join(dir, "example"))
	imagetest.Command(t, "chmod", "-R", "a+rX", filepath.Join(dir, "example"))
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(home, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary(t), "build", "--config", "../example/build.yaml", "-o", "x.sqsh", "--progress", "none")
	cmd.Dir = home
	cmd.Env = []string{"TMPDIR=" + home, "HOME=" + home, "PATH=/usr/bin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := names(t, home), []string{"x.sqsh", "x.sqsh.manifest.json"}; !slices.Equal(got, want) {
		t.Errorf("it left %q, want %q", got, want)
	}
	if !bytes.Equal(readBytes(t, filepath.Join(home, "x.sqsh")), readBytes(t, buildExample(t))) {
		t.Error("the image is not the one that root gets")
	}
}

func readBytes(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestShardsKilled packs as four processes at once, kills one of them again and
// again before it is let through, and builds from what they made.
func TestShardsKilled(t *testing.T) {
	program, dir := binary(t), t.TempDir()
	reference, image, cache := filepath.Join(dir, "reference.sqsh"), filepath.Join(dir, "x.sqsh"), filepath.Join(dir, "cache")
	imagetest.Command(t, program, "build", "--config", exampleConfig, "-o", reference, "--progress", "none")
	pack := func(shard string) *exec.Cmd {
		cmd := exec.Command(program, "pack", "--config", exampleConfig, "--cache", cache, "--shard", shard, "--progress", "none")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	others := []*exec.Cmd{pack("0/4"), pack("1/4"), pack("3/4")}
	start := time.Now()
	if err := pack("2/4").Wait(); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(start)
	killed := 0
	for range 12 {
		for _, name := range names(t, cache) {
			if rand.IntN(2) == 0 {
				if err := os.RemoveAll(filepath.Join(cache, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		cmd := pack("2/4")
		time.Sleep(time.Duration(rand.Int64N(int64(whole))))
		if err := cmd.Process.Kill(); err != nil && err != os.ErrProcessDone {
			t.Fatal(err)
		}
		if cmd.Wait() != nil {
			killed++
		}
	}
	if killed == 0 {
		t.Error("no process was killed before it ended")
	}
	for i, cmd := range append(others, pack("2/4")) {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d: %v", i, err)
		}
	}
	imagetest.Command(t, program, "build", "--config", exampleConfig, "-o", image, "--cache", cache, "--progress", "none")
	if !bytes.Equal(readBytes(t, image), readBytes(t, reference)) {
		t.Error("the image from the shards differs from one that is built in full")
	}
}
