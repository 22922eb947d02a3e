package storedb

import (
	"fmt"
	"slices"
	"strings"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb/internal/btree"
)

// check refuses what Nix would not have written.
func check(info *store.PathInfo) error {
	if _, err := store.ParsePath(string(info.Path)); err != nil {
		return err
	}
	if info.NarHash.IsZero() {
		return fmt.Errorf("%s has no NAR hash", info.Path)
	}
	if info.NarSize <= 0 {
		return fmt.Errorf("%s has a NAR size of %d", info.Path, info.NarSize)
	}
	if info.Deriver != "" {
		if _, err := store.ParsePath(string(info.Deriver)); err != nil {
			return fmt.Errorf("deriver of %s: %w", info.Path, err)
		}
	}
	for _, sig := range info.Sigs {
		if sig == "" || strings.ContainsFunc(sig, notPrintable) {
			return fmt.Errorf("%s has the signature %.100q, which cannot be in a list that spaces divide", info.Path, sig)
		}
	}
	if strings.ContainsFunc(info.CA, notPrintable) {
		return fmt.Errorf("%s has the content address %.100q, which has spaces or control characters", info.Path, info.CA)
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

// pathColumns adds the columns of a row in ValidPaths as Nix's
// LocalStore::addValidPath fills them. The first, id, is the row's number.
// "ultimate" stays NULL: no path was built where the image is mounted.
func pathColumns(rec *btree.Record, info *store.PathInfo, registrationTime int64) {
	rec.Null()
	rec.Text(string(info.Path))
	rec.Text("sha256:" + info.NarHash.Base16())
	rec.Int(registrationTime)
	textOrNull(rec, string(info.Deriver))
	rec.Int(info.NarSize)
	rec.Null()
	textOrNull(rec, joinSigs(info.Sigs))
	textOrNull(rec, info.CA)
}

func textOrNull(rec *btree.Record, s string) {
	if s == "" {
		rec.Null()
		return
	}
	rec.Text(s)
}

// joinSigs writes signatures as Nix does, which keeps them in a set.
func joinSigs(sigs []string) string {
	if len(sigs) < 2 {
		return strings.Join(sigs, " ")
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(sigs))), " ")
}
