package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Error is one thing that is wrong in a fleet.yaml.
type Error struct {
	File string // as it was given to Load; empty from Parse
	Line int    // from 1
	Key  string // as "targets[0].zones[2].diskType"; empty for the whole file
	Err  error
}

// Error says where and what.
func (e *Error) Error() string {
	where := fmt.Sprintf("line %d", e.Line)
	if e.File != "" {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Key == "" {
		return where + ": " + e.Err.Error()
	}
	return where + ": " + e.Key + ": " + e.Err.Error()
}

// Unwrap returns what is wrong, without the place.
func (e *Error) Unwrap() error { return e.Err }

// maxErrors is how many faults of one file are reported.
const maxErrors = 20

// reader turns YAML nodes into values and collects what is wrong with them.
type reader struct {
	file string
	errs []error
}

// node is a YAML value, and the key that it is the value of.
type node struct {
	ast.Node
	key  string
	line int
}

// key is one that a mapping may have.
type key struct {
	name string
	read func(node)
}

func (r *reader) fail(n node, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, &Error{File: r.file, Line: max(n.line, 1), Key: n.key, Err: fmt.Errorf(format, args...)})
	}
}

func (r *reader) err() error { return errors.Join(r.errs...) }

// mapping reads the keys of a mapping, each at most once, and no others. It
// returns which were there.
func (r *reader) mapping(n node, keys ...key) map[string]bool {
	seen := make(map[string]bool)
	pairs, ok := pairsOf(n.Node)
	if !ok {
		r.fail(n, "a mapping is wanted: %s", keyNames(keys))
		return seen
	}
	for _, pair := range pairs {
		name, child, ok := r.pair(n, pair)
		if !ok {
			continue
		}
		i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		switch {
		case i < 0:
			r.fail(child, "unknown key, the keys here are %s", keyNames(keys))
		case seen[name]:
			r.fail(child, "the key comes twice")
		default:
			seen[name] = true
			keys[i].read(child)
		}
	}
	return seen
}

// textMap reads a mapping of texts to texts.
func (r *reader) textMap(n node) (map[string]string, map[string]node) {
	texts, nodes := make(map[string]string), make(map[string]node)
	pairs, ok := pairsOf(n.Node)
	if !ok {
		r.fail(n, "a mapping is wanted")
		return texts, nodes
	}
	for _, pair := range pairs {
		name, child, ok := r.pair(n, pair)
		if !ok {
			continue
		}
		if _, twice := texts[name]; twice {
			r.fail(child, "the key comes twice")
			continue
		}
		texts[name], nodes[name] = r.text(child), child
	}
	return texts, nodes
}

func pairsOf(n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}, true
	}
	return nil, false
}

// pair splits a mapping's entry. Keys are plain texts.
func (r *reader) pair(parent node, pair *ast.MappingValueNode) (string, node, bool) {
	child := node{Node: pair.Value, key: parent.key, line: parent.line}
	name, ok := pair.Key.(*ast.StringNode)
	if !ok {
		r.fail(child, "a key has to be text")
		return "", child, false
	}
	if t := name.GetToken(); t != nil && t.Position != nil {
		child.line = t.Position.Line
	}
	child.key = clip(name.Value)
	if parent.key != "" {
		child.key = parent.key + "." + child.key
	}
	if pair.Value == nil {
		r.fail(child, "there is no value")
		return "", child, false
	}
	return name.Value, child, true
}

// list reads a list of at most limit items.
func (r *reader) list(n node, limit int, item func(node)) {
	seq, ok := n.Node.(*ast.SequenceNode)
	if !ok {
		r.fail(n, "a list is wanted, as in [a, b]")
		return
	}
	if len(seq.Values) > limit {
		r.fail(n, "%d items, and %d are the most", len(seq.Values), limit)
		return
	}
	for i, v := range seq.Values {
		child := node{Node: v, key: fmt.Sprintf("%s[%d]", n.key, i), line: lineOf(v, n.line)}
		if v == nil {
			r.fail(child, "an empty item")
			continue
		}
		item(child)
	}
}

func lineOf(n ast.Node, otherwise int) int {
	if n == nil {
		return otherwise
	}
	if m, ok := n.(*ast.MappingNode); ok && len(m.Values) > 0 && m.Values[0].Key != nil {
		return lineOf(m.Values[0].Key, otherwise)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return otherwise
}

// text reads a text. A number is none: it would have to be quoted.
func (r *reader) text(n node) string {
	switch v := n.Node.(type) {
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return strings.TrimSpace(v.Value.Value)
	}
	r.fail(n, "text is wanted here%s", quoteHint(n.Node))
	return ""
}

func quoteHint(n ast.Node) string {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return ": put it in quotes"
	}
	return ""
}

// scalar is what was written for a plain value.
func scalar(n ast.Node) (string, bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return v.GetToken().Value, true
	}
	return "", false
}

// integer reads a whole number between least and most.
func (r *reader) integer(n node, least, most int) int {
	s, _ := scalar(n.Node)
	v, err := strconv.Atoi(s)
	if err != nil || v < least || v > most {
		r.fail(n, "a whole number from %d to %d is wanted", least, most)
		return least
	}
	return v
}

// number reads a number over 0 and up to most.
func (r *reader) number(n node, most float64) float64 {
	s, _ := scalar(n.Node)
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v > 0 && v <= most) {
		r.fail(n, "a number over 0 and up to %g is wanted", most)
		return most
	}
	return v
}

func (r *reader) truth(n node) bool {
	v, ok := n.Node.(*ast.BoolNode)
	if !ok {
		r.fail(n, "the value has to be true or false")
		return false
	}
	return v.Value
}

func (r *reader) share(n node) Share {
	s, _ := scalar(n.Node)
	v, err := ParseShare(s)
	if err != nil {
		r.fail(n, "%w", err)
	}
	return v
}

// maxDuration is the longest that may be written: ten years.
const maxDuration = 3650 * 24 * time.Hour

// duration reads what [time.ParseDuration] takes, and days: "14d".
func (r *reader) duration(n node) time.Duration {
	s, _ := scalar(n.Node)
	v, err := parseDuration(s)
	if err != nil || v < 0 || v > maxDuration {
		r.fail(n, "a length of time is wanted, as in 30s, 15m, 12h or 14d")
		return 0
	}
	return v
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 12)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}

func keyNames(keys []key) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}

// clip shortens what somebody wrote before it goes into an error.
func clip(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
