package gcetest

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

var fieldPattern = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9]*(\.[\p{L}0-9_-]+)*$`)

var operators = map[string]bool{"=": true, "!=": true, "<": true, "<=": true, ">": true, ">=": true, ":": true}

// comparison is one condition on one field of a resource.
type comparison struct {
	path  []string
	op    string
	value string
	re    *regexp.Regexp // eq, ne, and values of : that have a *
}

func (p *filterParser) newComparison(path []string, op, value filterToken) (filterNode, error) {
	c := &comparison{path: path, op: op.text, value: value.text}
	switch {
	case op.is("eq") || op.is("ne"):
		p.regexps++
		re, err := regexp.Compile("^(?:" + value.text + ")$")
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", strings.Join(path, "."), op.text, err)
		}
		c.re = re
	case !op.quoted && operators[op.text]:
		p.comparisons++
		if !strings.Contains(value.text, "*") || value.text == "*" && op.text == ":" {
			break
		}
		if op.text != ":" {
			return nil, fmt.Errorf("%s: a * in a value needs the operator ':'", strings.Join(path, "."))
		}
		c.re = regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(value.text), `\*`, ".*") + "$")
	default:
		return nil, fmt.Errorf("%q is not an operator", op.text)
	}
	return c, nil
}

func (c *comparison) match(m proto.Message) (bool, error) {
	values, err := fieldValues(m.ProtoReflect(), c.path)
	if err != nil {
		return false, err
	}
	if c.op == ":" && c.value == "*" {
		return len(values) > 0, nil
	}
	if c.op == "!=" || c.op == "ne" {
		for _, v := range values {
			if c.re != nil && c.re.MatchString(v) || c.re == nil && v == c.value {
				return false, nil
			}
		}
		return true, nil
	}
	for _, v := range values {
		if c.holds(v) {
			return true, nil
		}
	}
	return false, nil
}

func (c *comparison) holds(v string) bool {
	switch {
	case c.re != nil:
		return c.re.MatchString(v)
	case c.op == ":":
		return strings.Contains(v, c.value)
	}
	order := strings.Compare(v, c.value)
	a, errA := strconv.ParseFloat(v, 64)
	b, errB := strconv.ParseFloat(c.value, 64)
	if errA == nil && errB == nil {
		order = cmp.Compare(a, b)
	}
	switch c.op {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	case ">=":
		return order >= 0
	}
	return order == 0
}

// fieldValues gives the values at a path: none where the field is not set, and
// those of all elements where a list is on the way.
func fieldValues(m protoreflect.Message, path []string) ([]string, error) {
	f := m.Descriptor().Fields().ByJSONName(path[0])
	if f == nil {
		return nil, fmt.Errorf("there is no field %q", path[0])
	}
	rest := path[1:]
	switch {
	case f.IsMap():
		return mapValues(m, f, rest)
	case f.Kind() == protoreflect.MessageKind && len(rest) > 0:
		return nestedValues(m, f, rest)
	case len(rest) > 0:
		return nil, fmt.Errorf("the field %q has no parts", path[0])
	case !m.Has(f):
		return nil, nil
	case f.IsList():
		var all []string
		for i := range m.Get(f).List().Len() {
			all = append(all, m.Get(f).List().Get(i).String())
		}
		return all, nil
	case f.Kind() == protoreflect.EnumKind:
		return []string{string(f.Enum().Values().ByNumber(m.Get(f).Enum()).Name())}, nil
	}
	return []string{m.Get(f).String()}, nil
}

func mapValues(m protoreflect.Message, f protoreflect.FieldDescriptor, rest []string) ([]string, error) {
	if len(rest) != 1 {
		return nil, fmt.Errorf("the field %q needs a key", f.JSONName())
	}
	if v := m.Get(f).Map().Get(protoreflect.ValueOfString(rest[0]).MapKey()); v.IsValid() {
		return []string{v.String()}, nil
	}
	return nil, nil
}

func nestedValues(m protoreflect.Message, f protoreflect.FieldDescriptor, rest []string) ([]string, error) {
	if !f.IsList() {
		return fieldValues(m.Get(f).Message(), rest)
	}
	var all []string
	list := m.Get(f).List()
	for i := range list.Len() {
		values, err := fieldValues(list.Get(i).Message(), rest)
		if err != nil {
			return nil, err
		}
		all = append(all, values...)
	}
	return all, nil
}
