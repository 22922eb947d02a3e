package storedb

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"

	"bigdisk/bundle/store"
)

// randomDigest gives the digest of a store path.
func randomDigest(r *rand.Rand) string {
	b := make([]byte, store.DigestLen)
	for i := range b {
		b[i] = base32Digits[r.IntN(len(base32Digits))]
	}
	return string(b)
}

// randomInfos gives n sorted infos with up to refs references each, as a store
// of package builds has them.
func randomInfos(r *rand.Rand, n, refs int) []*store.PathInfo {
	infos := make([]*store.PathInfo, n)
	for i := range infos {
		name := "some-package-name-" + strconv.Itoa(r.IntN(100000)) + "-1.2.3"
		infos[i] = &store.PathInfo{
			Path:    store.Path(store.Dir + "/" + randomDigest(r) + "-" + name),
			NarSize: 1 + r.Int64N(1<<r.IntN(40)),
			Deriver: store.Path(store.Dir + "/" + randomDigest(r) + "-" + name + ".drv"),
			Sigs:    []string{randomSig(r, "cache.example.org-1")},
		}
		for w := 0; w < len(infos[i].NarHash); w += 8 {
			binary.LittleEndian.PutUint64(infos[i].NarHash[w:], r.Uint64())
		}
	}
	slices.SortFunc(infos, func(a, b *store.PathInfo) int {
		return slices.Compare([]byte(a.Path), []byte(b.Path))
	})
	for _, info := range infos {
		for range refs {
			info.References = append(info.References, infos[r.IntN(n)].Path)
		}
		info.SortReferences()
	}
	return infos
}

func randomSig(r *rand.Rand, key string) string {
	b := make([]byte, 64)
	for w := 0; w < len(b); w += 8 {
		binary.LittleEndian.PutUint64(b[w:], r.Uint64())
	}
	return fmt.Sprintf("%s:%s", key, base64.StdEncoding.EncodeToString(b))
}
