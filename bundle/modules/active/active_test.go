package active_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"bigdisk/bundle"
	"bigdisk/bundle/lock"
	"bigdisk/bundle/modules"
	"bigdisk/bundle/modules/active"
	"bigdisk/bundle/source"
	"bigdisk/bundle/store"
)

// files is a source of store paths that are files.
type files map[store.Path]string

func (f files) String() string { return "files" }
func (f files) Close() error   { return nil }

func (f files) Info(_ context.Context, path store.Path) (*store.PathInfo, error) {
	if _, ok := f[path]; !ok {
		return nil, &source.Error{Path: path, Source: "files", Err: source.ErrNotFound}
	}
	return &store.PathInfo{Path: path}, nil
}

func (f files) Open(_ context.Context, info *store.PathInfo) (store.Contents, error) {
	return &file{text: strings.NewReader(f[info.Path])}, nil
}

// file is the contents of a path that is a file; "broken" ends with an error,
// and "dir" is a directory.
type file struct {
	text *strings.Reader
	seen bool
}

var errBroken = errors.New("broken")

func (f *file) Next() (*store.Entry, error) {
	if f.seen {
		if f.text.Size() == int64(len("broken")) {
			return nil, errBroken
		}
		return nil, io.EOF
	}
	f.seen = true
	if f.text.Size() == int64(len("dir")) {
		return &store.Entry{Kind: store.Directory}, nil
	}
	return &store.Entry{Kind: store.Regular, Size: f.text.Size()}, nil
}
func (f *file) Read(p []byte) (int, error) { return f.text.Read(p) }
func (f *file) Close() error               { return nil }

func TestMake(t *testing.T) {
	f := new(lock.File)
	for i, v := range []string{"a:v1", "b:v1", "a:v10", "a:v9", "c:v1", "d:v1"} {
		id, tag, err := lock.ParseKey(v + "-20240301-0000000")
		if err != nil {
			t.Fatal(err)
		}
		f.Entries = append(f.Entries, lock.Entry{ID: id, Tag: tag, Path: store.Path(fmt.Sprintf("%s/%032d-m", store.Dir, i))})
	}
	at := func(i int) store.Path { return f.Entries[i].Path }
	src := files{
		at(2): `{"id": "a", "name": "A tools", "description": "what a is", "env": {}}`,
		at(1): `{"name": "B"}`,
		at(4): "dir",
		at(5): strings.Repeat("x", bundle.MaxModuleFile+1),
	}
	text, err := active.Make(t.Context(), f, active.Options{Source: src})
	if err != nil {
		t.Fatal(err)
	}
	checkActive(t, text, map[string]string{"a": "A tools|what a is|v10|v10,v9,v1", "b": "B||v1|v1", "c": "c||v1|v1", "d": "d||v1|v1"})

	text, err = active.Make(t.Context(), f, active.Options{Source: src, IDs: []lock.ID{"b", "a"}})
	if err != nil {
		t.Fatal(err)
	}
	checkActive(t, text, map[string]string{"a": "A tools|what a is|v10|v10,v9,v1", "b": "B||v1|v1"})

	if _, err := active.Make(t.Context(), f, active.Options{Source: src, IDs: []lock.ID{"z"}}); !errors.Is(err, modules.ErrUnknown) {
		t.Errorf("%v", err)
	}
	src[at(1)] = "broken"
	if _, err := active.Make(t.Context(), f, active.Options{Source: src}); !errors.Is(err, errBroken) {
		t.Errorf("%v", err)
	}
	delete(src, at(1))
	if _, err := active.Make(t.Context(), f, active.Options{Source: src}); !errors.Is(err, source.ErrNotFound) || !strings.Contains(err.Error(), "module b:v1-") {
		t.Errorf("%v", err)
	}
	text, err = active.Make(t.Context(), f, active.Options{Source: src, SkipMissing: true, IDs: []lock.ID{"b"}})
	if err != nil {
		t.Fatal(err)
	}
	checkActive(t, text, map[string]string{"b": "b||v1|v1"})
}

// checkActive compares name, description, version and the versions of the tags.
func checkActive(t *testing.T, text []byte, want map[string]string) {
	t.Helper()
	var listed map[string]struct {
		Name, Description, Tag string
		Path                   store.Path
		Commit                 string
		Tags                   []string
	}
	if err := json.Unmarshal(text, &listed); err != nil {
		t.Fatal(err)
	}
	short := func(tag string) string { v, _, _ := strings.Cut(tag, "-"); return v }
	for id, m := range listed {
		var tags []string
		for _, tag := range m.Tags {
			tags = append(tags, short(tag))
		}
		if got := strings.Join([]string{m.Name, m.Description, short(m.Tag), strings.Join(tags, ",")}, "|"); got != want[id] || m.Path == "" || len(m.Commit) != 40 {
			t.Errorf("%s: %s, want %s", id, got, want[id])
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d active, want %d", len(listed), len(want))
	}
}
