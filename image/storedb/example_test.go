package storedb_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"bigdisk/bundle/store"
	"bigdisk/image/storedb"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	libc := store.Path("/nix/store/0c6kzph7l0dcbfmjap64f0czdafn3b3x-libc-2.40")
	hello := store.Path("/nix/store/5dyv2pm7lvdgajzd9v7cvw1s2mwgljaw-hello-2.12")
	infos := []*store.PathInfo{
		{Path: libc, NarHash: store.Hash{1}, NarSize: 30_000_000, References: []store.Path{libc}},
		{Path: hello, NarHash: store.Hash{2}, NarSize: 226_560, References: []store.Path{libc, hello}},
	}

	// Half a closure is refused.
	name := filepath.Join(dir, "db.sqlite")
	if err := storedb.Write(context.Background(), name, storedb.Infos(infos[1:]), storedb.Options{}); err == nil {
		fmt.Println("half a closure was taken")
	}
	if err := storedb.Write(context.Background(), name, storedb.Infos(infos), storedb.Options{}); err != nil {
		fmt.Println(err)
		return
	}
	info, err := os.Stat(name)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("bytes:", info.Size())
	for _, f := range storedb.Layout() {
		if f.Kind == store.Regular {
			fmt.Printf("%s: %q\n", f.Path, f.Data)
		}
	}
	// Output:
	// bytes: 81920
	// nix/var/nix/db/schema: "10"
}
