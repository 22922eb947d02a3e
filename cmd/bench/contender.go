package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// step is a command line that is timed.
type step []string

// contender is a way to make something: steps one after the other, whose
// result is a file.
type contender struct {
	name  string
	steps []step
	out   string // "" if there is no one file to weigh
	keep  bool   // leaves out where it is
	// limit is how long it may take, 0 for ever. A contender with a limit may
	// fail as well: both are said in the table.
	limit time.Duration
	// reset runs before each round, and is not timed.
	reset func() error
	// look is called with the result of the last round.
	look func(out string) ([]string, error)
}

// race runs the contenders in turn, rounds times over, and returns a row for
// each that could run, in order.
func race(ctx context.Context, rounds int, contenders []contender) ([]row, error) {
	contenders = slices.DeleteFunc(contenders, func(c contender) bool {
		for _, s := range c.steps {
			if !present(s[0]) {
				fmt.Fprintf(os.Stderr, "left out: %s, for want of %s\n", c.name, s[0])
				return true
			}
		}
		return false
	})
	rows := make([]row, len(contenders))
	for round := range rounds {
		for i, c := range contenders {
			fmt.Fprintf(os.Stderr, "round %d: %s\n", round+1, c.name)
			if rows[i].failed != "" {
				continue
			}
			r, err := c.run(ctx, round == rounds-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 && r.failed == "" && rows[i].cost.wall < r.cost.wall {
				r.cost = rows[i].cost
			}
			rows[i] = r
		}
	}
	return rows, nil
}

// present tells whether a program is there.
func present(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

func (c *contender) run(ctx context.Context, last bool) (row, error) {
	r := row{name: c.name}
	if c.out != "" {
		if err := removeImage(c.out); err != nil {
			return r, err
		}
	}
	if c.reset != nil {
		if err := c.reset(); err != nil {
			return r, err
		}
	}
	if err := c.runSteps(ctx, &r); err != nil || r.failed != "" {
		return r, errors.Join(err, c.clean())
	}
	var err error
	if c.out != "" {
		if r.size, err = fileSize(c.out); err != nil {
			return r, err
		}
	}
	if last && c.look != nil {
		if r.extra, err = c.look(c.out); err != nil {
			return r, err
		}
	}
	return r, c.clean()
}

func (c *contender) runSteps(ctx context.Context, r *row) error {
	limited := ctx
	if c.limit > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, c.limit)
		defer cancel()
	}
	for _, s := range c.steps {
		one, err := measure(limited, s...)
		r.cost = r.cost.add(one)
		switch {
		case err == nil:
		case ctx.Err() != nil || c.limit == 0:
			return err
		case limited.Err() != nil:
			r.failed = fmt.Sprintf("not finished after %v", c.limit)
			return nil
		default:
			r.failed = "fails: " + lastLine(err.Error())
			return nil
		}
	}
	return nil
}

// lastLine is the end of the last line, short enough for a table.
func lastLine(s string) string {
	const most = 100
	s = strings.TrimSpace(s)
	s = s[strings.LastIndexByte(s, '\n')+1:]
	if len(s) > most {
		s = "…" + strings.ToValidUTF8(s[len(s)-most:], "")
	}
	return s
}

func (c *contender) clean() error {
	if c.out == "" || c.keep {
		return nil
	}
	return removeImage(c.out)
}

// manifestSuffix is what the name of an image's manifest ends with.
const manifestSuffix = ".manifest.json"

func removeImage(name string) error {
	return errors.Join(removeAll(name), removeAll(name+manifestSuffix))
}

// removeAll removes a tree, though a store's directories are read-only.
func removeAll(root string) error {
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o755)
		}
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(root)
}
