package main

import (
	"fmt"
	"os"
	"strconv"
)

// scaleTable makes images of synthetic stores, each once, and verifies them.
func (b *bench) scaleTable() error {
	for _, f := range []struct{ name, suffix string }{{"squashfs", ".sqsh"}, {"ext4", ".raw"}} {
		var all []contender
		for _, n := range b.scale {
			out := b.out(f.suffix)
			all = append(all, contender{
				name: fmt.Sprintf("%d paths", n), out: out, look: b.verifyCost,
				steps: []step{{b.self, "made", "--paths", strconv.Itoa(n), "-o", out}},
			})
		}
		rows, err := race(b.ctx, 1, all)
		if err != nil {
			return err
		}
		printTable(os.Stdout, f.name+", synthetic store", rows, "manifest", "verify", "CPU", "peak memory")
	}
	return nil
}

// verifyCost verifies an image.
func (b *bench) verifyCost(out string) ([]string, error) {
	manifest, err := fileSize(out + manifestSuffix)
	if err != nil {
		return nil, err
	}
	c, err := measure(b.ctx, b.bigdisk, "verify", "--progress", "none", out)
	return append([]string{megabytes(manifest)}, c.cells()...), err
}
