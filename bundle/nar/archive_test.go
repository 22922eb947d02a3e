package nar_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"bigdisk/bundle/nar"
	"bigdisk/bundle/store"
)

// file is an entry and a regular file's bytes.
type file struct {
	store.Entry
	data string
}

func regular(path, data string) file {
	return file{store.Entry{Path: path, Kind: store.Regular, Size: int64(len(data))}, data}
}

func executable(path, data string) file {
	f := regular(path, data)
	f.Executable = true
	return f
}

func directory(path string) file {
	return file{Entry: store.Entry{Path: path, Kind: store.Directory}}
}

func symlink(path, target string) file {
	return file{Entry: store.Entry{Path: path, Kind: store.Symlink, Target: target}}
}

// trees are what both directions are tested with.
func trees() map[string][]file {
	deep := []file{directory("")}
	path := ""
	for range nar.MaxDepth - 2 {
		path = strings.TrimPrefix(path+"/d", "/")
		deep = append(deep, directory(path))
	}
	return map[string][]file{
		"empty file":      {regular("", "")},
		"file":            {regular("", "hello\n")},
		"executable":      {executable("", "#!/bin/sh\n")},
		"symlink":         {symlink("", "/nix/store/nowhere")},
		"empty directory": {directory("")},
		"padding": {directory(""), regular("1", "1"), regular("7", "1234567"), regular("8", "12345678"),
			regular("9", "123456789")},
		"names in byte order": {directory(""), regular(" ", ""), directory("A"), regular("A/x", "x"), regular("A-", ""),
			regular("A.b", ""), directory("a"), symlink("a/link", "../A"), directory("a/sub"), executable("a/sub/run", "run"),
			directory("a/sub2"), regular("a\n", "newline"), regular("\u00e9", "e acute"), regular("\xff", "not UTF-8")},
		"long name and target": {directory(""), symlink(strings.Repeat("n", nar.MaxName), strings.Repeat("t", nar.MaxTarget))},
		"deep":                 append(deep, regular(path+"/f", "bottom")),
		"large file":           {directory(""), regular("big", strings.Repeat("0123456789abcde\n", 20000)), regular("small", "s")},
	}
}

// archive writes files with a Writer.
func archive(t testing.TB, files []file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for i := range files {
		if err := w.Create(&files[i].Entry); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i].data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// reader is what Reader and DirReader have in common.
type reader interface {
	Next() (*store.Entry, error)
	io.Reader
}

// readAll reads everything that r gives.
func readAll(r reader) ([]file, error) {
	var files []file
	for {
		e, err := r.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return files, err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return files, err
		}
		files = append(files, file{*e, string(data)})
	}
}

// words joins strings as an archive has them: length, bytes, zeros.
func words(list ...string) string {
	var b strings.Builder
	for _, s := range list {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(s)))
		b.Write(n[:])
		b.WriteString(s)
		b.WriteString(strings.Repeat("\x00", -len(s)&7))
	}
	return b.String()
}

// number is a length that no string follows.
func number(n uint64) string {
	return string(binary.LittleEndian.AppendUint64(nil, n))
}

// entries is a directory with an empty file for each name.
func entries(names ...string) string {
	list := []string{"nix-archive-1", "(", "type", "directory"}
	for _, n := range names {
		list = append(list, "entry", "(", "name", n, "node", "(", "type", "regular", "contents", "", ")", ")")
	}
	return words(append(list, ")")...)
}
