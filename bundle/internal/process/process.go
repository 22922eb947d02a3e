// Package process runs the commands that bundle depends on (nix, git) so that
// none of them outlives the run: each has a process group of its own, which is
// ended as a whole.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultGrace is how long a command may take to end once it is told to.
const DefaultGrace = 10 * time.Second

// Command is a program to run.
type Command struct {
	// Name is the program, found as [exec.LookPath] does, and Args what follows.
	Name string
	Args []string
	// Env are variables "NAME=VALUE" besides our own, of which those named in
	// Unset are left out.
	Env, Unset []string
	// Stdin, Stdout and Stderr may be nil for nothing.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Grace is how long the command may take to end after it is told to, before
	// it is killed; 0 is [DefaultGrace].
	Grace time.Duration
}

// SignalError says that a signal ended a command, which was not ours.
type SignalError struct {
	Name   string
	Signal syscall.Signal
}

// Error names the program and the signal.
func (e *SignalError) Error() string {
	return fmt.Sprintf("%s was killed by signal %d (%s)", e.Name, e.Signal, e.Signal)
}

// Crashed reports whether the program did it to itself.
func (e *SignalError) Crashed() bool {
	switch e.Signal {
	case syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGILL, syscall.SIGFPE:
		return true
	}
	return false
}

// Run runs the command until it ends. When ctx is done, the command and all
// that it started in its group get SIGTERM, what is left of them SIGKILL, and
// ctx's error is returned. When we die, the command gets SIGTERM too. Errors
// name the program: an [*exec.ExitError], a [*SignalError], or that it could not be
// started.
func (c Command) Run(ctx context.Context) error {
	// The command is told of its parent thread's end, so that has to stay.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	cmd.Env = c.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return signalGroup(cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = c.Grace
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = DefaultGrace
	}
	if err := cmd.Start(); err != nil {
		return c.failed(ctx, err)
	}
	awaitExit(cmd.Process.Pid)
	// The group's leader is not reaped yet, so the group's number is still its.
	signalGroup(cmd.Process.Pid, syscall.SIGKILL)
	return c.failed(ctx, cmd.Wait())
}

func (c Command) environ() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(c.Unset, name)
	})
	return append(env, c.Env...)
}

// awaitExit waits until the process has ended, and leaves it to be reaped.
func awaitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// signalGroup signals all of a process group; that there is none is no error.
func signalGroup(pid int, sig syscall.Signal) error {
	err := syscall.Kill(-pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// failed says what an end means.
func (c Command) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &SignalError{c.Name, status.Signal()}
		}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed: %w", c.Name, err)
	}
	return fmt.Errorf("%s: %w", c.Name, err)
}

// Output runs the command and returns what it writes to standard output, at
// most limit bytes of it: more is an error. The error of a command that fails
// ends with the last of what it wrote to standard error.
func (c Command) Output(ctx context.Context, limit int64) ([]byte, error) {
	out := limitedBuffer{left: limit}
	var last Tail
	c.Stdout, c.Stderr = &out, &last
	err := c.Run(ctx)
	switch {
	case out.left < 0:
		return nil, fmt.Errorf("%s: it wrote more than %d bytes", c.Name, limit)
	case err != nil && last.String() != "":
		return nil, &Error{err, last.String()}
	case err != nil:
		return nil, err
	}
	return out.kept.Bytes(), nil
}

// Error is a command that failed, and the last of what it said.
type Error struct {
	Err    error
	Stderr string
}

// Error shows both.
func (e *Error) Error() string { return e.Err.Error() + ": " + e.Stderr }

// Unwrap returns how it failed.
func (e *Error) Unwrap() error { return e.Err }

// limitedBuffer refuses what goes beyond its limit.
type limitedBuffer struct {
	kept bytes.Buffer
	left int64
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, io.ErrShortBuffer
	}
	return b.kept.Write(p)
}

// tailSize is how much a Tail keeps, in bytes.
const tailSize = 4 << 10

// Tail is a writer that keeps the last lines of what is written to it, some
// [tailSize] bytes.
type Tail struct{ text []byte }

// Write implements [io.Writer].
func (t *Tail) Write(p []byte) (int, error) {
	t.text = append(t.text, p[max(0, len(p)-2*tailSize):]...)
	if len(t.text) > 2*tailSize {
		t.text = append(t.text[:0], t.text[len(t.text)-tailSize:]...)
	}
	return len(p), nil
}

// String returns the lines, without white space around them.
func (t *Tail) String() string {
	text := strings.ToValidUTF8(string(t.text), "\uFFFD")
	if len(text) > tailSize {
		_, text, _ = strings.Cut(text[len(text)-tailSize:], "\n")
	}
	return strings.TrimSpace(text)
}
