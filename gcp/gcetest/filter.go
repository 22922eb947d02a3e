package gcetest

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// Filter is the condition of a list call, in the language that the API's lists
// share: comparisons such as labels.a=b, name != "c", sizeGb > 10 and
// labels.k:*, joined by AND, OR, NOT and parentheses, where comparisons that
// stand side by side are joined by AND. The older forms `name eq REGEXP` and
// `name ne REGEXP` must stand alone.
type Filter struct {
	root filterNode
}

type filterNode interface {
	match(m proto.Message) (bool, error)
}

type (
	allOf  []filterNode
	anyOf  []filterNode
	negate struct{ node filterNode }
)

func (n allOf) match(m proto.Message) (bool, error) {
	for _, node := range n {
		if ok, err := node.match(m); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (n anyOf) match(m proto.Message) (bool, error) {
	for _, node := range n {
		if ok, err := node.match(m); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (n negate) match(m proto.Message) (bool, error) {
	ok, err := n.node.match(m)
	return !ok && err == nil, err
}

// ParseFilter reads a filter. The empty one matches everything.
func ParseFilter(text string) (*Filter, error) {
	if len(text) > maxFilter || !utf8.ValidString(text) {
		return nil, fmt.Errorf("the filter is not UTF-8 of at most %d bytes", maxFilter)
	}
	tokens, err := filterTokens(text)
	if err != nil {
		return nil, err
	}
	if len(tokens) == 0 {
		return &Filter{allOf{}}, nil
	}
	p := &filterParser{tokens: tokens}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(tokens) {
		return nil, fmt.Errorf("unexpected %q", tokens[p.at].text)
	}
	if p.regexps > 0 && p.comparisons > 0 {
		return nil, fmt.Errorf("eq and ne cannot be combined with other comparisons")
	}
	return &Filter{root}, nil
}

// Match tells whether a resource fulfils the filter. A field that its kind does
// not have is an error.
func (f *Filter) Match(m proto.Message) (bool, error) { return f.root.match(m) }

type filterToken struct {
	text   string
	quoted bool
}

func (t filterToken) is(word string) bool { return !t.quoted && t.text == word }

var filterWord = regexp.MustCompile(`^(\(|\)|!=|<=|>=|=|<|>|:|-?[^\s()=<>:!",]+|-)`)

func filterTokens(text string) ([]filterToken, error) {
	var tokens []filterToken
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		if text == "" {
			return tokens, nil
		}
		if text[0] == '"' {
			value, rest, err := quotedToken(text[1:])
			if err != nil {
				return nil, err
			}
			tokens, text = append(tokens, filterToken{value, true}), rest
			continue
		}
		word := filterWord.FindString(text)
		if word == "" {
			return nil, fmt.Errorf("unexpected %q", text[:1])
		}
		tokens, text = append(tokens, filterToken{word, false}), text[len(word):]
	}
}

func quotedToken(text string) (value, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], nil
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", fmt.Errorf("a quoted value has no end")
}

type filterParser struct {
	tokens               []filterToken
	at                   int
	comparisons, regexps int
}

const (
	maxFilter      = 8192 // bytes
	maxFilterDepth = 100  // of parentheses
)

func (p *filterParser) peek(word string) bool { return p.at < len(p.tokens) && p.tokens[p.at].is(word) }

func (p *filterParser) take(word string) bool {
	if !p.peek(word) {
		return false
	}
	p.at++
	return true
}

func (p *filterParser) next() (filterToken, error) {
	if p.at == len(p.tokens) {
		return filterToken{}, fmt.Errorf("the filter ends too early")
	}
	p.at++
	return p.tokens[p.at-1], nil
}

func (p *filterParser) or(depth int) (filterNode, error) {
	var any anyOf
	for {
		node, err := p.and(depth)
		if err != nil {
			return nil, err
		}
		any = append(any, node)
		if !p.take("OR") {
			return any, nil
		}
	}
}

func (p *filterParser) and(depth int) (filterNode, error) {
	var all allOf
	for {
		node, err := p.term(depth)
		if err != nil {
			return nil, err
		}
		all = append(all, node)
		if !p.take("AND") && (p.at == len(p.tokens) || p.peek(")") || p.peek("OR")) {
			return all, nil
		}
	}
}

func (p *filterParser) term(depth int) (filterNode, error) {
	if depth > maxFilterDepth {
		return nil, fmt.Errorf("more than %d parentheses", maxFilterDepth)
	}
	if p.take("NOT") || p.take("-") {
		node, err := p.term(depth + 1)
		return negate{node}, err
	}
	if p.take("(") {
		node, err := p.or(depth + 1)
		if err == nil && !p.take(")") {
			err = fmt.Errorf("a parenthesis is not closed")
		}
		return node, err
	}
	return p.comparison()
}

func (p *filterParser) comparison() (filterNode, error) {
	field, err := p.next()
	if err != nil {
		return nil, err
	}
	name, negated := strings.CutPrefix(field.text, "-")
	if field.quoted || !fieldPattern.MatchString(name) {
		return nil, fmt.Errorf("%q is not a field", field.text)
	}
	op, err := p.next()
	if err != nil {
		return nil, err
	}
	value, err := p.next()
	if err != nil {
		return nil, err
	}
	if !value.quoted && (value.is("(") || value.is(")") || operators[value.text]) {
		return nil, fmt.Errorf("%s %s has no value", name, op.text)
	}
	node, err := p.newComparison(strings.Split(name, "."), op, value)
	if negated && err == nil {
		node = negate{node}
	}
	return node, err
}
