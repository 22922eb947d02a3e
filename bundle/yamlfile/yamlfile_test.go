package yamlfile

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/parser"
)

// TestLimits: what the parser would take gigabytes for is refused before it sees
// it, and brackets in text are none.
func TestLimits(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		line       int
	}{
		"brackets":         {"a: x\nb: " + strings.Repeat("[", 3000), "more than 32 brackets are open", 2},
		"braces":           {strings.Repeat("{a: ", 4000), "more than 32 brackets are open", 1},
		"closed before":    {"a: " + strings.Repeat("]", 3000) + "\nb: " + strings.Repeat("[", 3000), "more than 32 brackets are open", 2},
		"closed in text":   {"a: " + strings.Repeat("[ ']]', ", 2000) + "\n", "more than 32 brackets are open", 1},
		"text before":      {"a: '" + strings.Repeat("]", 9000) + "'\nb: " + strings.Repeat("[", 9000), "more than 32 brackets are open", 2},
		"a comment before": {"# " + strings.Repeat("]", 9000) + "\nb: " + strings.Repeat("[", 9000), "more than 32 brackets are open", 2},
		"a long line":      {"\na: " + strings.Repeat("x", MaxLine), "a line of more than 16384 bytes", 2},
		"a long file":      {strings.Repeat("# nothing\n", MaxSize/10+1), "more than 1048576 bytes", 1},
		"text and closed":  {"a: [" + strings.Repeat(`"a[]", `, 1000) + "a]\n", "", 0},
		"as many":          {"a: " + strings.Repeat("[", MaxOpen) + strings.Repeat("]", MaxOpen) + "\n", "", 0},
	} {
		_, err := Parse([]byte(test.text))
		limit := new(LimitError)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (!errors.As(err, &limit) || limit.Line != test.line || limit.Error() != test.want):
			t.Errorf("%s: %v in line %d, want %s in line %d", name, err, limit.Line, test.want, test.line)
		}
	}
}

func TestOptions(t *testing.T) {
	const twice = "a: 1\na: 2\n"
	if _, err := Parse([]byte(twice)); err == nil {
		t.Error("a key comes twice")
	}
	if _, err := Parse([]byte(twice), parser.AllowDuplicateMapKey()); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("a: [1, {b: c}]\n"))
	f.Add([]byte("a: '" + strings.Repeat("]", 40) + "'\nb: " + strings.Repeat("[", 40)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if file, err := Parse(text); err == nil && file == nil {
			t.Error("neither a file nor an error")
		}
	})
}

func ExampleParse() {
	file, err := Parse([]byte("waves: [canary, all]\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(file.Docs[0].Body.Type())
	// Output: Mapping
}
