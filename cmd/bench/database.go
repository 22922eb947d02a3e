package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb"
)

// What the database table is about.
const (
	databasePaths = 100_000
	databaseRefs  = 10
)

// database compares ways to load a registration, which is how Nix's own tools
// hand over what is valid.
func (b *bench) database() error {
	registration := filepath.Join(b.dir, "registration")
	if err := writeRegistration(registration, databasePaths); err != nil {
		return err
	}
	ours, theirs := b.out(".sqlite"), b.out(".nixstore")
	nix := fmt.Sprintf("nix-store --option build-users-group '' --store local?root=%q --load-db < %q", theirs, registration)
	steps := []step{{"sh", "-c", nix}}
	if !present("nix-store") {
		steps = []step{{"nix-store"}}
	}
	rows, err := race(b.ctx, b.rounds, []contender{
		{name: "bigdisk", out: ours, steps: []step{{b.self, "database", "--registration", registration, "-o", ours}}},
		{
			name: "nix-store --load-db", out: filepath.Join(theirs, storedb.DatabasePath), steps: steps,
			reset: func() error { return removeAll(theirs) },
		},
	})
	if err == nil {
		printTable(os.Stdout, fmt.Sprintf("database, %d paths with %d references each", databasePaths, databaseRefs), rows)
	}
	return err
}

// databaseCommand makes a database of what nix-store --dump-db prints.
func databaseCommand() *cobra.Command {
	var registration, output string
	c := &cobra.Command{
		Use:   "database --registration FILE -o FILE",
		Short: "make a store's database of a registration",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return loadRegistration(c.Context(), registration, output)
		},
	}
	f := c.Flags()
	f.StringVar(&registration, "registration", "", "as nix-store --load-db reads it")
	f.StringVarP(&output, "output", "o", "", "the database")
	return c
}

func loadRegistration(ctx context.Context, registration, output string) error {
	f, err := os.Open(registration)
	if err != nil {
		return err
	}
	defer f.Close()
	infos, err := readRegistration(f)
	if err != nil {
		return fmt.Errorf("%s: %w", registration, err)
	}
	slices.SortFunc(infos, func(a, b *store.PathInfo) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return storedb.Write(ctx, output, storedb.Infos(infos), storedb.Options{})
}

// writeRegistration makes n paths up that refer to paths before them.
func writeRegistration(name string, n int) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	r := rand.New(rand.NewPCG(1, 1))
	paths := make([]string, n)
	for i := range paths {
		hash := sha256.Sum256(strconv.AppendInt(nil, int64(i), 10))
		paths[i] = store.Dir + "/" + store.EncodeBase32(hash[:20]) + "-some-package-" + strconv.Itoa(i) + "-1.2.3"
	}
	for i, path := range paths {
		refs := make(map[int]bool)
		for len(refs) < min(databaseRefs, i) {
			refs[r.IntN(i)] = true
		}
		hash := sha256.Sum256([]byte(path))
		fmt.Fprintf(w, "%s\n%x\n%d\n\n%d\n", path, hash, 1000+r.IntN(1<<20), len(refs))
		for _, k := range slices.Sorted(maps.Keys(refs)) {
			fmt.Fprintln(w, paths[k])
		}
	}
	return w.Flush()
}

// readRegistration reads, for each path, lines with the path, its NAR hash in
// hexadecimal, its size, its deriver, the number of references and these.
func readRegistration(r io.Reader) ([]*store.PathInfo, error) {
	lines := bufio.NewScanner(r)
	next := func() string {
		lines.Scan()
		return lines.Text()
	}
	var infos []*store.PathInfo
	for lines.Scan() {
		path, err := store.ParsePath(lines.Text())
		if err != nil {
			return nil, err
		}
		info := &store.PathInfo{Path: path}
		hash, err := hex.DecodeString(next())
		if err != nil || len(hash) != len(info.NarHash) {
			return nil, fmt.Errorf("%s: no SHA-256", path)
		}
		copy(info.NarHash[:], hash)
		if info.NarSize, err = strconv.ParseInt(next(), 10, 64); err != nil {
			return nil, fmt.Errorf("%s: size: %w", path, err)
		}
		info.Deriver = store.Path(next())
		n, err := strconv.Atoi(next())
		if err != nil {
			return nil, fmt.Errorf("%s: number of references: %w", path, err)
		}
		for range n {
			ref, err := store.ParsePath(next())
			if err != nil {
				return nil, fmt.Errorf("%s: reference: %w", path, err)
			}
			info.References = append(info.References, ref)
		}
		info.SortReferences()
		infos = append(infos, info)
	}
	return infos, lines.Err()
}
