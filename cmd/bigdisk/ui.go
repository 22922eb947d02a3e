package main

// What users read. Results go to standard output, everything else to standard
// error. Messages are in lower case, without a full stop; an error says what is
// wrong with which thing, and its hint what to do.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
	"bigdisk/image/atomicfile"
	"bigdisk/pipeline"
)

// The exit statuses.
const (
	exitSuccess = 0
	exitFailure = 1 // what was asked for could not be done
	exitUsage   = 2 // it was not clear what was asked for
)

// usageError is about the command line or a configuration file.
type usageError struct {
	err  error
	hint string
}

// Error is the mistake without its hint.
func (e usageError) Error() string { return e.err.Error() }

// Unwrap returns the mistake without its hint.
func (e usageError) Unwrap() error { return e.err }

// afterInterrupt says what a command that may be interrupted leaves.
type afterInterrupt struct {
	error
	state string
}

// Unwrap returns what went wrong.
func (a afterInterrupt) Unwrap() error { return a.error }

// report prints err, if any, with its hint, and returns the exit status that
// goes with it.
func report(w io.Writer, ctx context.Context, err error) int {
	if err == nil {
		return exitSuccess
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		stopped := errors.New("interrupted")
		var after afterInterrupt
		if errors.As(err, &after) {
			stopped = fmt.Errorf("interrupted; %s", after.state)
		}
		err = stopped
	}
	message := err.Error()
	if errors.Is(err, pipeline.ErrUsage) {
		message = strings.Replace(message, pipeline.ErrUsage.Error()+": ", "", 1)
	}
	fmt.Fprintf(w, "bigdisk: %s\n", harmless(message, "\n\t"))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(w, "bigdisk: hint: %s\n", hint)
	}
	return exitStatus(err)
}

func exitStatus(err error) int {
	if errors.As(err, new(usageError)) || errors.Is(err, pipeline.ErrUsage) {
		return exitUsage
	}
	return exitFailure
}

// hintFor tells what to do about the errors that users meet most.
func hintFor(err error) string {
	var usage usageError
	var hinted hintedError
	switch {
	case errors.As(err, &usage):
		return usage.hint
	case errors.As(err, &hinted):
		return hinted.hint
	case errors.Is(err, pipeline.ErrUsage):
		return "see bigdisk build --help"
	case errors.Is(err, syscall.ENOSPC):
		return "free some space there; what is temporary goes to TMPDIR"
	case errors.Is(err, store.ErrUntrusted):
		return "give the signer's public key with --trusted-key NAME:BASE64, or --no-check-sigs to do without"
	case errors.Is(err, source.ErrNotFound):
		return "add a --from that has it"
	case errors.Is(err, atomicfile.ErrBusy):
		return "wait for it, or give another -o"
	}
	return ""
}

// newLogger writes warnings and errors for people: a line each, attributes
// after the message.
func newLogger(w io.Writer) *slog.Logger { return slog.New(&lineHandler{w: w}) }

// lineHandler is a slog.Handler. Each record goes out in one Write.
type lineHandler struct {
	w     io.Writer
	attrs string
	group string
}

// Enabled implements [slog.Handler].
func (h *lineHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements [slog.Handler].
func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString("bigdisk: ")
	if r.Level >= slog.LevelWarn {
		b.WriteString(strings.ToLower(r.Level.String()) + ": ")
	}
	b.WriteString(r.Message)
	b.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(h.format(a))
		return true
	})
	b.WriteByte('\n')
	_, err := io.WriteString(h.w, harmless(b.String(), "\n\t"))
	return err
}

// harmless writes control characters but those in keep as Go does, so that what
// comes out of images and from servers gives no orders to a terminal and, unless
// "\n" is kept, begins no line of its own.
func harmless(s, keep string) string {
	control := func(c rune) bool { return unicode.IsControl(c) && !strings.ContainsRune(keep, c) }
	if !strings.ContainsFunc(s, control) {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if control(c) {
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		} else {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// WithAttrs implements [slog.Handler].
func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	for _, a := range attrs {
		next.attrs += h.format(a)
	}
	return &next
}

// WithGroup implements [slog.Handler].
func (h *lineHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

func (h *lineHandler) format(a slog.Attr) string {
	return fmt.Sprintf(" %s%s=%v", h.group, a.Key, a.Value)
}
