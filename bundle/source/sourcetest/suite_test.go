package sourcetest

import (
	"slices"
	"testing"

	"bigdisk/bundle/store"
)

// The comparisons that the suite rests on see every difference.
func TestSameTree(t *testing.T) {
	tree := func() []File { return []File{Dir(""), Reg("a", "12345678"), Exe("b", "x"), Link("c", "a")} }
	if err := sameTree(tree(), tree()); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(f []File) []File{
		"byte":       func(f []File) []File { f[1].Data[7] ^= 1; return f },
		"longer":     func(f []File) []File { f[1].Data = append(f[1].Data, 0); return f },
		"executable": func(f []File) []File { f[1].Executable = true; return f },
		"name":       func(f []File) []File { f[1].Path = "A"; return f },
		"kind":       func(f []File) []File { f[0].Kind = store.Regular; return f },
		"target":     func(f []File) []File { f[3].Target = "b"; return f },
		"less":       func(f []File) []File { return f[:3] },
		"more":       func(f []File) []File { return append(f, Reg("d", "")) },
		"order":      func(f []File) []File { slices.Reverse(f); return f },
	} {
		if sameTree(change(tree()), tree()) == nil {
			t.Errorf("%s: no difference was seen", name)
		}
	}
}

func TestSameInfo(t *testing.T) {
	m := Sample(t)
	s := &suite{m: m}
	for _, p := range m.Paths() {
		good := *m.items[p].info
		if err := s.sameInfo(&good); err != nil {
			t.Error(err)
		}
		for name, change := range map[string]func(i *store.PathInfo){
			"hash":    func(i *store.PathInfo) { i.NarHash[31] ^= 1 },
			"size":    func(i *store.PathInfo) { i.NarSize++ },
			"refs":    func(i *store.PathInfo) { i.References = append(slices.Clone(i.References), p) },
			"deriver": func(i *store.PathInfo) { i.Deriver = p },
			"ca":      func(i *store.PathInfo) { i.CA = "text:" },
		} {
			bad := good
			change(&bad)
			if s.sameInfo(&bad) == nil {
				t.Errorf("%s: no difference was seen", name)
			}
		}
	}
}
