package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOutput(t *testing.T) {
	t.Setenv("BIGDISK_Y", "2")
	out, err := Command{Name: "sh", Args: []string{"-c", "echo $X$BIGDISK_Y; cat"}, Env: []string{"X=1"}, Unset: []string{"BIGDISK_Y"}, Stdin: strings.NewReader("in")}.Output(t.Context(), 100)
	if string(out) != "1\nin" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	_, err = Command{Name: "sh", Args: []string{"-c", "echo why >&2; exit 3"}}.Output(t.Context(), 100)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || err.Error() != "sh: exit status 3: why" {
		t.Errorf("%v", err)
	}
	_, err = Command{Name: "sh", Args: []string{"-c", "echo 12345"}}.Output(t.Context(), 5)
	if err == nil || err.Error() != "sh: it wrote more than 5 bytes" {
		t.Errorf("%v", err)
	}
	_, err = Command{Name: "bigdisk-no-such-program"}.Output(t.Context(), 1)
	if !errors.Is(err, exec.ErrNotFound) || !strings.HasPrefix(err.Error(), "bigdisk-no-such-program is not installed") {
		t.Errorf("%v", err)
	}
	_, err = Command{Name: "sh", Args: []string{"-c", "kill -9 $$"}}.Output(t.Context(), 1)
	if killed := (*SignalError)(nil); !errors.As(err, &killed) || killed.Crashed() || err.Error() != "sh was killed by signal 9 (killed)" {
		t.Errorf("%v", err)
	}
}

func TestCrash(t *testing.T) {
	err := Command{Name: "sh", Args: []string{"-c", "kill -ABRT $$"}}.Run(t.Context())
	if killed := (*SignalError)(nil); !errors.As(err, &killed) || !killed.Crashed() {
		t.Errorf("%v", err)
	}
}

// TestCancelEndsTheGroup cancels a command that ignores SIGTERM and has a child
// that does too.
func TestCancelEndsTheGroup(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	go func() {
		for range 1000 {
			if text, _ := os.ReadFile(pids); strings.Count(string(text), "\n") == 2 {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		cancel(stop)
	}()
	script := `trap "" TERM; (echo $BASHPID >> ` + pids + `; exec sleep 1000) & echo $$ >> ` + pids + `; wait; wait; wait; sleep 1000`
	err := Command{Name: "bash", Args: []string{"-c", script}, Grace: 200 * time.Millisecond}.Run(ctx)
	if err != stop {
		t.Errorf("%v, want the context's cause", err)
	}
	for _, pid := range readPIDs(t, pids, 2) {
		checkEnded(t, pid)
	}
}

// TestChildrenEndWithTheCommand ends a command whose child goes on.
func TestChildrenEndWithTheCommand(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	if err := (Command{Name: "bash", Args: []string{"-c", "sleep 1000 & echo $! > " + pids}}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkEnded(t, readPIDs(t, pids, 1)[0])
}

// TestOrphans has a command that leaves processes in two sessions of their own.
func TestOrphans(t *testing.T) {
	if _, err := exec.LookPath("setsid"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("setsid is not installed")
	}
	orphans, err := AdoptOrphans()
	if err != nil {
		t.Fatal(err)
	}
	pids := filepath.Join(t.TempDir(), "pids")
	script := `setsid bash -c 'echo $$ > ` + pids + `; setsid sleep 1001 & echo $! >> ` + pids + `; wait' & while [ "$(wc -l < ` + pids + `)" != 2 ]; do sleep 0.01; done; kill -9 $$`
	if err := (Command{Name: "bash", Args: []string{"-c", script}}).Run(t.Context()); !errors.As(err, new(*SignalError)) {
		t.Fatal(err)
	}
	left := readPIDs(t, pids, 2)
	for _, pid := range left {
		if syscall.Kill(pid, 0) != nil {
			t.Fatalf("process %d has ended by itself: the test shows nothing", pid)
		}
	}
	if err := orphans.Close(); err != nil {
		t.Error(err)
	}
	for _, pid := range left {
		checkEnded(t, pid)
	}
}

func readPIDs(t *testing.T, file string, n int) []int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, line := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if len(pids) != n {
		t.Fatalf("%d processes, want %d: %q", len(pids), n, text)
	}
	return pids
}

// checkEnded fails if a process runs on; a zombie that init has not seen yet
// has ended.
func checkEnded(t *testing.T, pid int) {
	t.Helper()
	for range 100 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d is still running", pid)
	syscall.Kill(pid, syscall.SIGKILL)
}

func TestParseStat(t *testing.T) {
	for stat, want := range map[string][2]int{
		"12 (a b) c) S 7 12 9 0 -1": {7, 9},
		"12 (x) S 7 12":             {},
		"":                          {},
		"12 (x) S a b c":            {},
	} {
		parent, session, ok := parseStat([]byte(stat))
		if ok != (want[0] != 0) || ok && (parent != want[0] || session != want[1]) {
			t.Errorf("%q: %d, %d, %t", stat, parent, session, ok)
		}
	}
}

func TestTail(t *testing.T) {
	var tail Tail
	for i := range 10000 {
		fmt.Fprintf(&tail, "line %d\n", i)
	}
	if got := tail.String(); !strings.HasSuffix(got, "line 9998\nline 9999") || len(got) > tailSize || !strings.HasPrefix(got, "line ") {
		t.Errorf("%d bytes: %.40q…", len(got), got)
	}
	tail = Tail{}
	tail.Write(make([]byte, 1<<20))
	if len(tail.text) > 2*tailSize {
		t.Errorf("it keeps %d bytes", len(tail.text))
	}
}

func ExampleCommand_Output() {
	out, err := Command{Name: "echo", Args: []string{"hello"}}.Output(context.Background(), 100)
	fmt.Printf("%s%v\n", out, err)
	// Output:
	// hello
	// <nil>
}
