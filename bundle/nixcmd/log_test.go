package nixcmd

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// logOf is a log of these lines.
func logOf(lines ...string) *Log {
	l := new(Log)
	fmt.Fprint(l, strings.Join(lines, "\n")+"\n")
	return l
}

// A build of two derivations, one of which fails, as Nix 2.8 writes it.
var failedBuild = []string{
	`@nix {"action":"msg","level":3,"msg":"these 2 derivations will be built:"}`,
	`@nix {"action":"start","id":7,"level":0,"text":"","type":102}`,
	`@nix {"action":"start","id":8,"level":0,"text":"","type":104}`,
	`@nix {"action":"result","fields":[0,2,0,0],"id":8,"type":105}`,
	`@nix {"action":"start","fields":["/nix/store/x-bad.drv","",1,1],"id":9,"level":3,"text":"building '/nix/store/x-bad.drv'","type":105}`,
	`@nix {"action":"result","fields":["\u001b[1mline 1\u001b[0m"],"id":9,"type":101}`,
	`@nix {"action":"result","fields":["line 2"],"id":9,"type":101}`,
	`@nix {"action":"result","fields":[1,2,0,1],"id":8,"type":105}`,
	`@nix {"action":"msg","column":null,"file":null,"level":0,"line":null,"msg":"\u001b[31;1merror:\u001b[0m builder failed","raw_msg":"builder for '\u001b[35;1m/nix/store/x-bad.drv\u001b[0m' failed with exit code 3"}`,
	`@nix {"action":"msg","level":0,"msg":"(use '--show-trace' to show detailed location information)"}`,
	`@nix {"action":"stop","id":9}`,
	`@nix {"action":"msg","level":1,"msg":"\u001b[35;1mwarning:\u001b[0m a warning"}`,
	`not an event`,
}

func TestLogOfABuild(t *testing.T) {
	l := logOf(failedBuild...)
	if got, want := l.Errors(), []string{"builder for '/nix/store/x-bad.drv' failed with exit code 3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := l.Warnings(), []string{"a warning"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := l.BuildLog("/nix/store/x-bad.drv"), []string{"line 1", "line 2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := l.counts, (Counts{Built: 1, ToBuild: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := l.Last(); got != l.Errors()[0] {
		t.Errorf("%q", got)
	}
}

func TestLogOfCopies(t *testing.T) {
	var seen []Counts
	l := &Log{OnCounts: func(c Counts) { seen = append(seen, c) }}
	for _, line := range []string{
		`@nix {"action":"start","id":1,"type":103}`,
		`@nix {"action":"result","fields":[100,3000],"id":5,"type":106}`,
		`@nix {"action":"result","fields":[101,7],"id":5,"type":106}`,
		`@nix {"action":"start","id":2,"type":100}`,
		`@nix {"action":"result","fields":[500,1000,0,0],"id":2,"type":105}`,
		`@nix {"action":"result","fields":[1000,1000,0,0],"id":2,"type":105}`,
		`@nix {"action":"stop","id":2}`,
		`@nix {"action":"result","fields":[1,2,0,0],"id":1,"type":105}`,
		`@nix {"action":"result","fields":["1","2"],"id":1,"type":105}`,
		`@nix {"action":"result","fields":[1],"id":1,"type":105}`,
	} {
		fmt.Fprintln(l, line)
	}
	want := []Counts{{BytesToCopy: 3000}, {BytesToCopy: 3000, CopiedBytes: 500}, {BytesToCopy: 3000, CopiedBytes: 1000}, {BytesToCopy: 3000, CopiedBytes: 1000, Copied: 1, ToCopy: 2}}
	if !slices.Equal(seen, want) {
		t.Errorf("%+v, want %+v", seen, want)
	}
}

// TestLogIsBounded writes far more than a Log keeps.
func TestLogIsBounded(t *testing.T) {
	l := new(Log)
	long := strings.Repeat("x", 1<<20)
	for i := range 3 * maxMessages {
		fmt.Fprintf(l, "@nix {\"action\":\"msg\",\"level\":%d,\"msg\":\"%d %s\"}\n", i%2, i, long[:maxMessage])
	}
	fmt.Fprintf(l, "@nix {\"action\":\"msg\",\"level\":0,\"msg\":%q}\n", long)
	for i := range 2 * maxBuildLogs {
		fmt.Fprintf(l, "@nix {\"action\":\"start\",\"id\":%d,\"type\":105,\"fields\":[\"drv%d\"]}\n", i, i)
		for range 2 * buildLogLines {
			fmt.Fprintf(l, "@nix {\"action\":\"result\",\"id\":%d,\"type\":101,\"fields\":[%q]}\n", i, long[:1000])
		}
	}
	if n := len(l.Errors()); n != maxMessages || !strings.HasPrefix(l.Errors()[n-1], "598 ") {
		t.Errorf("%d errors, the last is %.20q", n, l.Errors()[n-1])
	}
	if len(l.logs) != maxBuildLogs || len(l.order) != maxBuildLogs || l.BuildLog("drv0") != nil {
		t.Errorf("%d build logs", len(l.logs))
	}
	if got := l.BuildLog(fmt.Sprintf("drv%d", 2*maxBuildLogs-1)); len(got) != buildLogLines || len(got[0]) > maxBuildLine+len("…") {
		t.Errorf("%d lines", len(got))
	}
	if cap(l.line) > 2*maxLogLine {
		t.Errorf("a line of %d bytes is kept", cap(l.line))
	}
}

func TestLogOfText(t *testing.T) {
	l := new(Log)
	fmt.Fprint(l, "error: line 1\n\x1b[31mand")
	fmt.Fprint(l, " line 2")
	if got, want := l.Last(), "error: line 1and line 2"; strings.ReplaceAll(got, "\n", "") != want {
		t.Errorf("%q", got)
	}
}

func TestTransient(t *testing.T) {
	for message, want := range map[string]bool{
		"unable to download 'https://c.example/nix-cache-info': Couldn't resolve host name (6)":    true,
		"unable to download 'https://c.example/x.narinfo': HTTP error 503 ('Service Unavailable')": true,
		"cannot connect to socket at '/nix/var/nix/daemon-socket/socket': Connection refused":      true,
		"builder for '/nix/store/x.drv' failed with exit code 1":                                   false,
		"hash mismatch in fixed-output derivation '/nix/store/x.drv'":                              false,
		"error: SQLite database '/nix/var/nix/db/db.sqlite' is busy":                               false,
	} {
		if got := Transient(message); got != want {
			t.Errorf("%q: %t", message, got)
		}
	}
}

// FuzzLog holds a Log to its bounds, and to giving the same for the same
// bytes however they are cut.
func FuzzLog(f *testing.F) {
	f.Add(strings.Join(failedBuild, "\n"), 10)
	f.Add("@nix {\"action\":\"result\",\"fields\":[9223372036854775807,1],\"id\":2,\"type\":105}\n@nix {", 1)
	f.Add("@nix {\"action\":\"start\",\"id\":2,\"type\":100}\n@nix {\"action\":\"stop\",\"id\":2}\n\n\x1b[", 3)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		whole, cutUp := new(Log), new(Log)
		fmt.Fprint(whole, text)
		cut = max(1, cut%100)
		for rest := text; rest != ""; {
			n := min(cut, len(rest))
			fmt.Fprint(cutUp, rest[:n])
			rest = rest[n:]
		}
		if whole.Last() != cutUp.Last() || whole.counts != cutUp.counts || !slices.Equal(whole.Errors(), cutUp.Errors()) {
			t.Errorf("cut into %d bytes: %q, %+v, whole: %q, %+v", cut, cutUp.Last(), cutUp.counts, whole.Last(), whole.counts)
		}
		for _, e := range whole.Errors() {
			if len(e) > maxMessage+len("…") || strings.ContainsRune(e, '\x1b') {
				t.Errorf("error %q", e)
			}
		}
	})
}

// BenchmarkLog reads the progress of copies, which is most of what Nix writes.
func BenchmarkLog(b *testing.B) {
	line := []byte(`@nix {"action":"result","fields":[1507328,2097152,0,0],"id":91147795955730,"type":105}` + "\n")
	l := logOf(`@nix {"action":"start","id":91147795955730,"type":100}`)
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		l.Write(line)
	}
}
