package storedb

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"bigdisk/bundle/store"
)

func testPath(digit, name string) store.Path {
	return store.Path(store.Dir + "/" + strings.Repeat(digit, store.DigestLen) + "-" + name)
}

func outputs(outs []Output, err error) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		for _, o := range outs {
			if !yield(o, nil) {
				return
			}
		}
		if err != nil {
			yield(Output{}, err)
		}
	}
}

// Enough outputs for several pages, several of them at one path.
func TestOutputs(t *testing.T) {
	var infos []*store.PathInfo
	var outs []Output
	for i := range 500 {
		drv := testPath("0", "")[:len(store.Dir)+1] + store.Path(fmt.Sprintf("%032d-p.drv", i))
		infos = append(infos, &store.PathInfo{Path: drv, NarHash: store.Hash{1}, NarSize: 1})
		for _, name := range []string{"dev", "doc", "out"} {
			outs = append(outs, Output{Drv: drv, Name: name, Path: testPath("z", fmt.Sprintf("p-%d-%s", (500-i)/2, name))})
		}
	}
	conn := openDB(t, writeDB(t, infos, Options{Outputs: outputs(outs, nil)}), "immutable=1")
	checkSound(t, conn)
	derivers := make(map[store.Path][]string)
	for i, info := range infos {
		var want []string
		for _, o := range outs[3*i : 3*i+3] {
			want = append(want, o.Name+"|"+string(o.Path))
			derivers[o.Path] = append(derivers[o.Path], fmt.Sprintf("%d|%s", i+1, info.Path))
		}
		if got := rows(t, conn, queryOutputs, i+1); !slices.Equal(got, want) {
			t.Errorf("outputs of %s: %q, want %q", info.Path, got, want)
		}
	}
	for path, want := range derivers {
		if got := rows(t, conn, queryValidDerivers, string(path)); !slices.Equal(got, want) {
			t.Errorf("derivers of %s: %q, want %q", path, got, want)
		}
	}
}

func TestBadOutputs(t *testing.T) {
	broken := errors.New("the derivation cannot be read")
	drv, tool := goldenInfos()[2].Path, goldenInfos()[1].Path
	for _, c := range []struct {
		name string
		outs iter.Seq2[Output, error]
		want string
	}{
		{"broken", outputs(nil, broken), broken.Error()},
		{"unsorted", outputs([]Output{{drv, "out", tool}, {drv, "dev", tool}}, nil), "sorted"},
		{"twice", outputs([]Output{{drv, "out", tool}, {drv, "out", tool}}, nil), "sorted"},
		{"unknown derivation", outputs([]Output{{testPath("c", "x.drv"), "out", tool}}, nil), string(testPath("c", "x.drv"))},
		{"no name", outputs([]Output{{drv, "", tool}}, nil), "not an output name"},
		{"bad name", outputs([]Output{{drv, "../x", tool}}, nil), "../x"},
		{"bad path", outputs([]Output{{drv, "out", "/tmp/x"}}, nil), "/tmp/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			err := Write(t.Context(), filepath.Join(dir, "db"), Infos(goldenInfos()), Options{Outputs: c.outs})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			checkGone(t, dir)
		})
	}
}

func TestReadOutputs(t *testing.T) {
	drv, out, dev := testPath("b", "tool.drv"), testPath("a", "tool"), testPath("a", "tool-dev")
	for _, c := range []struct {
		name, text string
		want       []Output
		err        string
	}{
		{"one", fmt.Sprintf(`Derive([("out","%s","","")],[],[],"x86_64-linux"`, out), []Output{{drv, "out", out}}, ""},
		{"sorted", fmt.Sprintf(`Derive([("out","%s","",""),("dev","%s","r:sha256","00")],`, out, dev), []Output{{drv, "dev", dev}, {drv, "out", out}}, ""},
		{"none", `Derive([],[`, nil, ""},
		{"floating", `Derive([("out","","r:sha256","")],[`, nil, ""},
		{"dynamic", fmt.Sprintf(`DrvWithVersion("xp-dyn-drv",[("out","%s","","")],[`, out), []Output{{drv, "out", out}}, ""},
		{"escapes", fmt.Sprintf(`Derive([("out","%s","a\"\\\n\r\t","")],[`, out), []Output{{drv, "out", out}}, ""},
		{"twice", fmt.Sprintf(`Derive([("out","%s","",""),("out","%s","","")],[`, out, dev), nil, "output out comes twice"},
		{"empty", ``, nil, "unexpected EOF"},
		{"cut", `Derive([("out","/nix/st`, nil, "unexpected EOF"},
		{"cut between", `Derive([("out","","","")`, nil, "unexpected EOF"},
		{"no derivation", `{"name":"x"}`, nil, `"Derive("`},
		{"other version", `DrvWithVersion("xp-next",[`, nil, "xp-dyn-drv"},
		{"three fields", `Derive([("out","","")],[`, nil, `","`},
		{"no bracket", `Derive([("out","","","");`, nil, ", or ]"},
		{"bad name", `Derive([("a/b","","","")],[`, nil, "a/b"},
		{"bad path", `Derive([("out","/etc","","")],[`, nil, "/etc"},
		{"long string", `Derive([("` + strings.Repeat("x", 1<<20), nil, "longer than"},
		{"many", `Derive([` + strings.Repeat(fmt.Sprintf(`("out","%s","",""),`, out), maxOutputs+2), nil, "more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadOutputs(drv, strings.NewReader(c.text))
			if !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v", got, c.want)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), string(drv))) {
				t.Errorf("error %v, want one with %q and the derivation", err, c.err)
			}
		})
	}
}

func TestReadOutputsPassesErrorsOn(t *testing.T) {
	broken := errors.New("the disk broke")
	text := `Derive([("out","`
	if _, err := ReadOutputs(testPath("b", "x.drv"), io.MultiReader(strings.NewReader(text), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
}

func FuzzReadOutputs(f *testing.F) {
	out := testPath("a", "tool")
	for _, text := range []string{
		fmt.Sprintf(`Derive([("out","%s","","")],[],[],"x86_64-linux","/bin/sh",[],[])`, out),
		fmt.Sprintf(`Derive([("dev","%s","r:sha256","00"),("out","","","")],`, out),
		fmt.Sprintf(`DrvWithVersion("xp-dyn-drv",[("out","%s","a\"\\\n","")],`, out),
		`Derive([],`,
		`Derive([("out`,
		`D`,
	} {
		f.Add(text)
	}
	drv := testPath("b", "tool.drv")
	f.Fuzz(func(t *testing.T, text string) {
		outs, err := ReadOutputs(drv, strings.NewReader(text))
		if err != nil {
			if len(outs) > 0 {
				t.Errorf("outputs %v with error %v", outs, err)
			}
			return
		}
		for i, o := range outs {
			if _, err := store.ParsePath(string(o.Path)); err != nil {
				t.Error(err)
			}
			if o.Drv != drv || i > 0 && o.compare(outs[i-1]) <= 0 {
				t.Errorf("%v at %d of %v", o, i, outs)
			}
		}
	})
}
