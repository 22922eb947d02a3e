package source_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"bigdisk/bundle/source"
	"bigdisk/bundle/source/sourcetest"
	"bigdisk/bundle/store"
)

// Sources are asked in turn; contents come as a stream of entries.
func Example() {
	ctx := context.Background()
	s, path := open()
	defer s.Close()
	info, err := s.Info(ctx, path)
	if err != nil {
		fmt.Println(err)
		return
	}
	contents, err := s.Open(ctx, info)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer contents.Close()
	for {
		entry, err := contents.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %q\n", entry.Kind, entry.Path)
		if entry.Kind == store.Regular {
			io.Copy(os.Stdout, contents)
		}
	}
	// Output:
	// directory ""
	// regular "greeting"
	// hello
}

// open stands for what mostly is
//
//	source.Parse("https://cache.nixos.org", source.Options{})
func open() (source.Source, store.Path) {
	m := sourcetest.NewMemory()
	path := m.Add(new(testing.T), "hello", []sourcetest.File{sourcetest.Dir(""), sourcetest.Reg("greeting", "hello\n")})
	return source.Chain([]source.Source{sourcetest.NewMemory(), m}, nil), path
}
