package worktree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"bigdisk/bundle/git"
	"bigdisk/bundle/lock"
)

// CheckOptions say what a lock file is checked against.
type CheckOptions struct {
	// Lock is the lock file, in a Git work tree.
	Lock string
	// Upstream is the revision whose lock file may only have been added to,
	// "origin/main" for instance; "" compares with none.
	Upstream string
}

// Report is what a check has found.
type Report struct {
	// Entries and Commits count what was checked.
	Entries int `json:"entries"`
	Commits int `json:"commits"`
	// Upstream is the commit that was compared with; "" if none was.
	Upstream string `json:"upstream,omitempty"`
	// Problems are the rules that are broken.
	Problems []lock.Problem `json:"problems"`
}

// Check checks the form of a lock file, that the commits of its entries are in
// the history of what is checked out, that their dates are the commits', that
// no two versions of a module have the same number, and that nothing of
// upstream's file is gone or changed. What the file breaks is in the report, of
// malformed entries the first one alone; an error means that it could not be
// checked.
func Check(ctx context.Context, opts CheckOptions) (*Report, error) {
	_, file, err := readExisting(opts.Lock)
	if bad := (*lock.Error)(nil); errors.As(err, &bad) && bad.Key != "" {
		// What comes after a malformed entry is not known.
		text := bad.Err.Error() + "; nothing after it was checked"
		return &Report{Problems: []lock.Problem{{Line: bad.Line, Key: bad.Key, Text: text}}}, nil
	}
	if err != nil {
		return nil, err
	}
	repo, err := git.Open(ctx, filepath.Dir(opts.Lock))
	if err != nil {
		return nil, err
	}
	commits := file.Commits()
	report := &Report{Entries: len(file.Entries), Commits: len(commits), Problems: []lock.Problem{}}
	if opts.Upstream != "" {
		problems, err := report.checkUpstream(ctx, repo, opts, file)
		if err != nil {
			return nil, err
		}
		report.Problems = append(report.Problems, problems...)
	}
	report.Problems = append(report.Problems, file.CheckVersions()...)
	absent, err := notInHistory(ctx, repo, commits)
	if err != nil {
		return nil, err
	}
	report.Problems = append(report.Problems, file.CheckHistory(absent)...)
	days, err := daysOf(ctx, repo, commits, absent)
	if err != nil {
		return nil, err
	}
	report.Problems = append(report.Problems, file.CheckDates(days)...)
	return report, nil
}

func readExisting(name string) ([]byte, *lock.File, error) {
	text, file, err := readLock(name)
	if err == nil && string(text) == empty {
		// Either it does not exist, or there is nothing to check in it.
		if _, statErr := filepath.EvalSymlinks(name); statErr != nil {
			return nil, nil, statErr
		}
	}
	return text, file, err
}

// checkUpstream compares with the file of another revision.
func (r *Report) checkUpstream(ctx context.Context, repo *git.Repo, opts CheckOptions, file *lock.File) ([]lock.Problem, error) {
	commit, err := repo.Resolve(ctx, opts.Upstream)
	if errors.Is(err, git.ErrNoRevision) {
		return nil, fmt.Errorf("--upstream: %w: fetch it first", err)
	}
	if err != nil {
		return nil, err
	}
	r.Upstream = commit
	name, err := inside(repo, opts.Lock)
	if err != nil {
		return nil, err
	}
	var earlier *lock.File
	err = repo.ReadFile(ctx, commit, name, func(text io.Reader) (err error) {
		earlier, err = lock.Parse(text)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is new
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", name, opts.Upstream, err)
	}
	return file.CheckAppended(earlier), nil
}

// notInHistory says which commits are not in the history of HEAD, and why. A
// clone that lacks a part of the history cannot tell, and is an error.
func notInHistory(ctx context.Context, repo *git.Repo, commits []lock.Commit) (map[lock.Commit]string, error) {
	ids := make([]string, len(commits))
	byID := make(map[string]lock.Commit, len(commits))
	for i, c := range commits {
		ids[i] = c.String()
		byID[ids[i]] = c
	}
	absent, err := repo.NotInHistory(ctx, "HEAD", ids)
	if err != nil || len(absent) == 0 {
		return nil, err
	}
	shallow, err := repo.Shallow(ctx)
	if err != nil {
		return nil, err
	}
	if shallow {
		return nil, fmt.Errorf("%s is a shallow clone, which does not have the whole history: run git fetch --unshallow, or check out with all of it (fetch-depth: 0)", repo.Dir())
	}
	missing, err := repo.Missing(ctx, absent)
	if err != nil {
		return nil, err
	}
	why := make(map[lock.Commit]string, len(absent))
	for _, id := range absent {
		why[byID[id]] = "is not in the history of this branch: it was rebased, or is of another branch"
	}
	for _, id := range missing {
		why[byID[id]] = "does not exist in this repository"
	}
	return why, nil
}

// daysOf tells on which days the commits were made, the author's and the
// committer's.
func daysOf(ctx context.Context, repo *git.Repo, commits []lock.Commit, absent map[lock.Commit]string) (map[lock.Commit][]lock.Date, error) {
	var ids []string
	for _, c := range commits {
		if absent[c] == "" {
			ids = append(ids, c.String())
		}
	}
	dates, err := repo.Dates(ctx, ids)
	if err != nil {
		return nil, err
	}
	days := make(map[lock.Commit][]lock.Date, len(dates))
	for _, c := range commits {
		d, ok := dates[c.String()]
		if !ok {
			continue
		}
		for _, s := range []string{d.Author, d.Committer} {
			day, err := lock.ParseDay(s)
			if err != nil {
				return nil, fmt.Errorf("commit %s: %w", c, err)
			}
			days[c] = append(days[c], day)
		}
	}
	return days, nil
}

// Fix says what to do about problems that a merge has made.
const Fix = "take upstream's lock file as it is (git checkout UPSTREAM -- FILE), then run bigdisk lock update, which adds what is missing"
