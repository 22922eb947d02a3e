package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// step is a command line that is timed.
type step []string

// contender is a way to make something: steps one after the other, whose
// result is a file.
type contender struct {
	name  string
	steps []step
	out   string
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
			if _, err := exec.LookPath(s[0]); err != nil {
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
			r, err := c.run(ctx, round == rounds-1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 && rows[i].cost.wall < r.cost.wall {
				r.cost = rows[i].cost
			}
			rows[i] = r
		}
	}
	return rows, nil
}

func (c *contender) run(ctx context.Context, last bool) (row, error) {
	r := row{name: c.name}
	if c.reset != nil {
		if err := c.reset(); err != nil {
			return r, err
		}
	}
	if err := removeAll(c.out); err != nil {
		return r, err
	}
	for _, s := range c.steps {
		one, err := measure(ctx, s...)
		if err != nil {
			return r, err
		}
		r.cost = r.cost.add(one)
	}
	var err error
	if r.size, err = fileSize(c.out); err != nil {
		return r, err
	}
	if last && c.look != nil {
		if r.extra, err = c.look(c.out); err != nil {
			return r, err
		}
	}
	return r, errors.Join(removeAll(c.out), removeAll(c.out+".manifest.json"))
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
