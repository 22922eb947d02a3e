// Package git asks a Git repository what the tools for lock files have to know
// of it, through the git command: which commit is checked out, what a file was
// at a revision, which commits are in a branch's history.
//
// It never changes a repository.
package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"

	"bigdisk/bundle/internal/process"
)

// Errors that callers tell apart.
var (
	// ErrNoRepository is wrapped when a directory is in no work tree.
	ErrNoRepository = errors.New("not in a Git work tree")
	// ErrNoRevision is wrapped when a revision does not exist.
	ErrNoRevision = errors.New("no such revision")
)

// maxOutput bounds what is taken from a short command, in bytes.
const maxOutput = 64 << 20

// Repo is a Git work tree.
type Repo struct{ dir string }

// Open finds the work tree that the directory is in.
func Open(ctx context.Context, dir string) (*Repo, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	r := &Repo{dir: abs}
	top, err := r.line(ctx, "rev-parse", "--show-toplevel")
	switch {
	case errors.Is(err, exec.ErrNotFound), ctx.Err() != nil:
		return nil, err
	case err != nil && strings.Contains(err.Error(), "not a git repository"):
		return nil, fmt.Errorf("%s is %w", dir, ErrNoRepository)
	case err != nil:
		return nil, err
	case top == "":
		return nil, fmt.Errorf("%s is %w: the repository is bare", dir, ErrNoRepository)
	}
	return &Repo{dir: top}, nil
}

// Dir is the top of the work tree, an absolute path.
func (r *Repo) Dir() string { return r.dir }

// command is git with what makes it behave the same for everybody. What a hook
// that we may run in has set is for another repository, perhaps.
func (r *Repo) command(args ...string) process.Command {
	return process.Command{
		Name:  "git",
		Args:  append([]string{"-C", r.dir, "--no-replace-objects", "--literal-pathspecs"}, args...),
		Env:   []string{"LC_ALL=C", "GIT_TERMINAL_PROMPT=0", "GIT_OPTIONAL_LOCKS=0"},
		Unset: []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"},
	}
}

func (r *Repo) output(ctx context.Context, args ...string) (string, error) {
	out, err := r.command(args...).Output(ctx, maxOutput)
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return string(out), nil
}

// line is output without the newline.
func (r *Repo) line(ctx context.Context, args ...string) (string, error) {
	out, err := r.output(ctx, args...)
	return strings.TrimSuffix(out, "\n"), err
}

// Resolve finds the commit that a revision stands for, as 40 hexadecimal
// digits. That there is none wraps [ErrNoRevision].
func (r *Repo) Resolve(ctx context.Context, revision string) (string, error) {
	id, err := r.line(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 1 {
		return "", fmt.Errorf("%w %q in %s", ErrNoRevision, revision, r.dir)
	}
	return id, err
}

// Changed lists the tracked files that differ from the commit that is checked
// out, relative to the top of the work tree.
func (r *Repo) Changed(ctx context.Context) ([]string, error) {
	out, err := r.output(ctx, "status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames")
	if err != nil {
		return nil, err
	}
	var files []string
	for _, record := range strings.Split(out, "\x00") {
		if len(record) > len("XY ") {
			files = append(files, record[len("XY "):])
		}
	}
	return files, nil
}

// Shallow reports whether the clone lacks the older part of its history.
func (r *Repo) Shallow(ctx context.Context) (bool, error) {
	answer, err := r.line(ctx, "rev-parse", "--is-shallow-repository")
	return answer == "true", err
}

// ReadFile lets read have what the file was at the commit; name is relative to
// the top of the work tree. Without such a file the error wraps
// [fs.ErrNotExist].
func (r *Repo) ReadFile(ctx context.Context, commit, name string, read func(io.Reader) error) error {
	listed, err := r.output(ctx, "ls-tree", "-z", "--full-tree", commit, "--", filepath.ToSlash(name))
	if err != nil {
		return err
	}
	meta, _, _ := strings.Cut(listed, "\t")
	fields := strings.Fields(meta) // mode, type, object
	if len(fields) != 3 || fields[1] != "blob" {
		return fmt.Errorf("no file %s in %s: %w", name, commit, fs.ErrNotExist)
	}
	return r.stream(ctx, nil, read, "cat-file", "blob", fields[2])
}

// stream runs git and lets read have what it writes. When read fails, that is
// the error.
func (r *Repo) stream(ctx context.Context, in io.Reader, read func(io.Reader) error, args ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	from, to := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		var last process.Tail
		c := r.command(args...)
		c.Stdin, c.Stdout, c.Stderr = in, to, &last
		err := c.Run(ctx)
		if err != nil && last.String() != "" {
			err = &process.Error{Err: err, Stderr: last.String()}
		}
		to.CloseWithError(err) // nil is the end
		ended <- err
	}()
	readErr := read(from)
	from.CloseWithError(errStopped)
	if readErr != nil {
		cancel()
	}
	err := <-ended
	if readErr != nil && !errors.Is(readErr, err) {
		return readErr
	}
	if err != nil {
		return fmt.Errorf("git %s: %w", args[0], err)
	}
	return nil
}

// errStopped ends a git whose output is no longer wanted.
var errStopped = errors.New("no more is wanted")

// Dates are a commit's days as YYYY-MM-DD, each in the time zone of whom it is
// about.
type Dates struct{ Author, Committer string }

// Dates tells when the commits were made. All of them have to exist.
func (r *Repo) Dates(ctx context.Context, commits []string) (map[string]Dates, error) {
	dates := make(map[string]Dates, len(commits))
	if len(commits) == 0 {
		return dates, nil
	}
	in := strings.NewReader(strings.Join(commits, "\n") + "\n")
	err := r.stream(ctx, in, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if f := strings.Fields(lines.Text()); len(f) == 3 {
				dates[f[0]] = Dates{f[1], f[2]}
			}
		}
		return lines.Err()
	}, "log", "--no-walk=unsorted", "--stdin", "--no-show-signature", "--format=%H %as %cs")
	return dates, err
}

// Missing tells which of the commits the repository does not have.
func (r *Repo) Missing(ctx context.Context, commits []string) ([]string, error) {
	var in bytes.Buffer
	for _, c := range commits {
		in.WriteString(c + "^{commit}\n")
	}
	i := 0
	var missing []string
	err := r.stream(ctx, &in, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		for ; lines.Scan() && i < len(commits); i++ {
			if strings.HasSuffix(lines.Text(), " missing") {
				missing = append(missing, commits[i])
			}
		}
		return lines.Err()
	}, "cat-file", "--batch-check=%(objecttype)")
	if err == nil && i < len(commits) {
		err = fmt.Errorf("git cat-file: %d answers to %d questions", i, len(commits))
	}
	return missing, err
}

// NotInHistory tells which of the commits are not the revision or an ancestor
// of it. It takes time linear in the length of the history.
func (r *Repo) NotInHistory(ctx context.Context, revision string, commits []string) ([]string, error) {
	wanted := make(map[string]bool, len(commits))
	for _, c := range commits {
		wanted[c] = true
	}
	err := r.stream(ctx, nil, func(out io.Reader) error {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			delete(wanted, lines.Text())
		}
		return lines.Err()
	}, "rev-list", revision, "--")
	if err != nil {
		return nil, err
	}
	var absent []string
	for _, c := range commits {
		if wanted[c] {
			absent = append(absent, c)
			delete(wanted, c)
		}
	}
	return absent, nil
}
