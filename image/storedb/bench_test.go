package storedb

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

func BenchmarkWrite(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		infos := randomInfos(rand.New(rand.NewPCG(1, 2)), n, 10)
		b.Run(fmt.Sprintf("%dk", n/1000), func(b *testing.B) {
			b.ReportAllocs()
			name := filepath.Join(b.TempDir(), "db.sqlite")
			for b.Loop() {
				if err := Write(context.Background(), name, Infos(infos), Options{}); err != nil {
					b.Fatal(err)
				}
				info, err := os.Stat(name)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(info.Size())
				if err := os.Remove(name); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/path")
		})
	}
}
