package storedb

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bigdisk/bundle/store"
	"bigdisk/image/imagetest"
)

// missing skips a test for want of something, but not in CI, where all must be
// there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// nix runs a command of Nix's on this machine and returns its output.
type nix struct {
	home string
}

func newNix(t *testing.T) nix {
	t.Helper()
	for _, tool := range []string{"nix", "nix-store", "nix-instantiate"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, "no %s: %v", tool, err)
		}
	}
	return nix{home: t.TempDir()}
}

func (n nix) run(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + n.home,
		"NIX_CONFIG=experimental-features = nix-command\nsandbox = false\nsubstitute = false\nbuild-users-group =\n",
	}
	return output(t, cmd)
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.String())
	}
	return string(out)
}

// acyclic keeps the references that go one way, for Nix registers no cycles.
func acyclic(infos []*store.PathInfo) []*store.PathInfo {
	for _, info := range infos {
		info.References = slices.DeleteFunc(info.References, func(r store.Path) bool { return r > info.Path })
	}
	return infos
}

// registration writes infos as nix-store --load-db reads them and --dump-db
// writes them.
func registration(infos []*store.PathInfo) string {
	var b strings.Builder
	for _, info := range infos {
		fmt.Fprintf(&b, "%s\n%s\n%d\n%s\n%d\n", info.Path, info.NarHash.Base16(), info.NarSize, info.Deriver, len(info.References))
		for _, r := range info.References {
			fmt.Fprintf(&b, "%s\n", r)
		}
	}
	return b.String()
}

// newStore lays out a store around a database of ours and returns its root.
func newStore(t *testing.T, parent string, infos []*store.PathInfo, opts Options) string {
	t.Helper()
	root, err := os.MkdirTemp(parent, "storedb-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	for _, f := range Layout() {
		name := filepath.Join(root, f.Path)
		if f.Kind == store.Directory {
			err = os.Mkdir(name, 0o755)
		} else {
			err = os.WriteFile(name, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := Write(t.Context(), filepath.Join(root, DatabasePath), Infos(infos), opts); err != nil {
		t.Fatal(err)
	}
	return root
}

// The same registration loaded by Nix and written by us gives the same rows.
func TestSameRowsAsNix(t *testing.T) {
	n := newNix(t)
	infos := acyclic(randomInfos(rand.New(rand.NewPCG(8, 8)), 400, 8))
	for _, info := range infos {
		info.Sigs = nil // --load-db takes none
	}
	text := registration(infos)
	theirs := t.TempDir()
	n.run(t, text, "nix-store", "--store", "local?root="+theirs, "--load-db")
	their := openDB(t, filepath.Join(theirs, DatabasePath), "mode=ro")
	ours := newStore(t, t.TempDir(), infos, Options{})
	our := openDB(t, filepath.Join(ours, DatabasePath), "mode=ro")
	for _, query := range []string{
		"select path, hash, deriver, narSize, ultimate, sigs, ca from ValidPaths order by path",
		"select a.path, b.path from Refs join ValidPaths a on a.id = referrer join ValidPaths b on b.id = reference order by 1, 2",
		"select * from DerivationOutputs",
		// IndexReferrer is no more in newer versions of Nix.
		"select type, name, tbl_name, sql from sqlite_schema where name not in ('IndexReferrer', 'SchemaMigrations') and name not like '%Realisations%' and name not like '%BuildTrace%' and name not like '%SchemaMigrations%' order by name",
	} {
		want, got := rows(t, their, query), rows(t, our, query)
		if strings.Contains(query, "sqlite_schema") {
			want, got = withoutComments(want), withoutComments(got)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s\ngives %q\nwant %q", query, got, want)
		}
	}
	if got := n.run(t, "", "nix-store", "--store", "local?root="+ours, "--dump-db"); got != text {
		t.Errorf("--dump-db gives\n%s\nwant\n%s", got, text)
	}
}

// withoutComments drops the SQL comments of a schema, which change with Nix's
// versions.
func withoutComments(schema []string) []string {
	var out []string
	for _, entry := range schema {
		for _, line := range strings.Split(entry, "\n") {
			code, _, _ := strings.Cut(line, "--")
			out = append(out, strings.TrimSpace(code))
		}
	}
	return out
}

const derivations = `
let
  make = name: inputs: derivation {
    inherit name inputs;
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ (builtins.toFile "${name}-builder.sh" "echo ${name} > $out") ];
    outputs = [ "out" "dev" ];
  };
  libc = make "libc-1" [ ];
  lib = make "lib-2" [ libc ];
  source = derivation {
    name = "source.tar.gz";
    system = "x86_64-linux";
    builder = "/bin/sh";
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = "0000000000000000000000000000000000000000000000000000";
  };
in
make "tool-3" [ libc lib.dev source ]
`

// pathInfo is what "nix path-info --json" says of a path.
type pathInfo struct {
	Path       store.Path   `json:"path"`
	NarHash    string       `json:"narHash"`
	NarSize    int64        `json:"narSize"`
	References []store.Path `json:"references"`
	Deriver    store.Path   `json:"deriver"`
	Signatures []string     `json:"signatures"`
	CA         string       `json:"ca"`
}

// instantiated has Nix make a store of derivations and sources, and returns its
// root, what Nix says of its paths, and the derivations' outputs.
func instantiated(t *testing.T, n nix) (root string, infos []*store.PathInfo, outs []Output) {
	t.Helper()
	root = t.TempDir()
	at := "local?root=" + root
	n.run(t, "", "nix-instantiate", "--store", at, "-E", derivations)
	var list []pathInfo
	if err := json.Unmarshal([]byte(n.run(t, "", "nix", "path-info", "--store", at, "--all", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(list, func(a, b pathInfo) int { return strings.Compare(string(a.Path), string(b.Path)) })
	for _, p := range list {
		info := &store.PathInfo{Path: p.Path, NarSize: p.NarSize, References: p.References, Deriver: p.Deriver, Sigs: p.Signatures, CA: p.CA}
		if err := info.NarHash.UnmarshalText([]byte(p.NarHash)); err != nil {
			t.Fatal(err)
		}
		info.SortReferences()
		infos = append(infos, info)
		if !p.Path.IsDerivation() {
			continue
		}
		file, err := os.Open(filepath.Join(root, string(p.Path)))
		if err != nil {
			t.Fatal(err)
		}
		o, err := ReadOutputs(p.Path, file)
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		outs = append(outs, o...)
	}
	return root, infos, outs
}

// copyStore copies the store paths of one store, all files, to another.
func copyStore(t *testing.T, from, to string, infos []*store.PathInfo) {
	t.Helper()
	for _, info := range infos {
		data, err := os.ReadFile(filepath.Join(from, string(info.Path)))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, string(info.Path)), data, fs.FileMode(0o444)); err != nil {
			t.Fatal(err)
		}
	}
}

// Nix answers the same from its own database and from ours.
func TestNixAnswersTheSame(t *testing.T) {
	n := newNix(t)
	theirs, infos, outs := instantiated(t, n)
	if len(infos) != 7 || len(outs) != 7 {
		t.Fatalf("Nix made %d paths and %d outputs, want 7 each", len(infos), len(outs))
	}
	ours := newStore(t, t.TempDir(), infos, Options{Outputs: outputs(outs, nil)})
	copyStore(t, theirs, ours, infos)
	ask := func(args ...string) {
		t.Helper()
		var answers [2]string
		for i, root := range []string{theirs, ours} {
			answers[i] = n.run(t, "", slices.Replace(slices.Clone(args), 1, 1, "--store", "local?root="+root)...)
		}
		if answers[0] != answers[1] {
			t.Errorf("%q gives\n%s\nwant\n%s", args, answers[1], answers[0])
		}
	}
	ask("nix-store", "--dump-db")
	for _, info := range infos {
		for _, query := range []string{"--references", "--requisites", "--referrers", "--referrers-closure", "--deriver", "--hash", "--size"} {
			ask("nix-store", "--query", query, string(info.Path))
		}
		if info.Path.IsDerivation() {
			ask("nix-store", "--query", "--outputs", string(info.Path))
		}
	}
	for _, o := range outs {
		their := openDB(t, filepath.Join(theirs, DatabasePath), "mode=ro")
		our := openDB(t, filepath.Join(ours, DatabasePath), "mode=ro")
		const query = "select v.path, d.id from DerivationOutputs d join ValidPaths v on d.drv = v.id where d.path = ? order by 1, 2"
		if got, want := rows(t, our, query, string(o.Path)), rows(t, their, query, string(o.Path)); !slices.Equal(got, want) {
			t.Errorf("derivers of %s: %q, want %q", o.Path, got, want)
		}
	}
	n.run(t, "", "nix-store", "--store", "local?root="+ours, "--verify", "--check-contents")
	var got []pathInfo
	if err := json.Unmarshal([]byte(n.run(t, "", "nix", "path-info", "--store", "local?root="+ours, "--all", "--json")), &got); err != nil {
		t.Fatal(err)
	}
	checkPathInfos(t, got, infos)
}

func checkPathInfos(t *testing.T, got []pathInfo, infos []*store.PathInfo) {
	t.Helper()
	if len(got) != len(infos) {
		t.Fatalf("%d paths, want %d", len(got), len(infos))
	}
	slices.SortFunc(got, func(a, b pathInfo) int { return strings.Compare(string(a.Path), string(b.Path)) })
	for i, p := range got {
		want := infos[i]
		var hash store.Hash
		if err := hash.UnmarshalText([]byte(p.NarHash)); err != nil {
			t.Error(err)
		}
		slices.Sort(p.References)
		if p.Path != want.Path || hash != want.NarHash || p.NarSize != want.NarSize || p.Deriver != want.Deriver || p.CA != want.CA ||
			!slices.Equal(p.References, want.References) || !slices.Equal(p.Signatures, slices.Sorted(slices.Values(want.Sigs))) {
			t.Errorf("Nix says %+v, want %+v", p, want)
		}
	}
}

// readOnlyScript runs a command in the Nix chroot $1 with the store at $2
// mounted read-only on $3, and nothing of it seen elsewhere.
const readOnlyScript = `set -e
mount -t proc proc "$1/proc"
mount --bind "$2" "$1$3"
mount -o remount,bind,ro "$1$3"
root=$1
shift 3
exec chroot "$root" "$@"`

// A newer Nix opens the store read-only, as hosts do, with the features on that
// hosts may have on.
func TestNewNixReadOnly(t *testing.T) {
	const variable = "BIGDISK_NIX226"
	chroot := os.Getenv(variable)
	if chroot == "" {
		missing(t, "%s does not name a directory with a system that has Nix 2.26 or later", variable)
	}
	imagetest.NeedRoot(t, "mount read-only and chroot")
	infos := acyclic(randomInfos(rand.New(rand.NewPCG(9, 9)), 300, 8))
	for i, info := range infos {
		if i%5 == 0 {
			info.Deriver, info.Sigs = "", nil
		}
	}
	root := newStore(t, t.TempDir(), infos, Options{})
	run := func(features string, args ...string) string {
		t.Helper()
		script := []string{"-m", "--propagation", "private", "sh", "-c", readOnlyScript, "sh", chroot, root, "/mnt"}
		cmd := exec.Command("unshare", append(script, args...)...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "NIX_CONFIG=experimental-features = nix-command read-only-local-store " + features + "\nbuild-users-group =\n"}
		return output(t, cmd)
	}
	const at = "local?root=/mnt&read-only=true"
	for _, features := range []string{"", "ca-derivations"} {
		if got, want := run(features, "nix-store", "--store", at, "--dump-db"), registration(infos); got != want {
			t.Errorf("with %q: --dump-db gives\n%s\nwant\n%s", features, got, want)
		}
		var byPath map[store.Path]pathInfo
		if err := json.Unmarshal([]byte(run(features, "nix", "path-info", "--store", at, "--all", "--json")), &byPath); err != nil {
			t.Fatal(err)
		}
		var got []pathInfo
		for p, info := range byPath {
			info.Path = p
			got = append(got, info)
		}
		checkPathInfos(t, got, infos)
	}
}
