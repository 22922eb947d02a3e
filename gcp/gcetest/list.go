package gcetest

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"cloud.google.com/go/compute/apiv1/computepb"
	"google.golang.org/protobuf/proto"
)

const maxPage = 500 // items, the default and the most that a list call gives

// item is one resource in a list.
type item struct {
	zone, name string
	m          message
}

// message is what the resources have in common.
type message interface {
	proto.Message
	GetName() string
	GetCreationTimestamp() string
}

type messenger interface{ message() proto.Message }

// collect gives all resources of the places; s.mu is held.
func collect[R messenger](c collection[R], places []place) []item {
	var items []item
	for _, p := range places {
		for name, r := range c[p] {
			items = append(items, item{p.zone, name, r.message().(message)})
		}
	}
	return items
}

// order sorts a list.
type order struct {
	newest bool // by creation time, newest first; else by zone and name
}

func parseOrder(text string) (order, error) {
	switch text {
	case "", "name", "name asc":
		return order{}, nil
	case "creationTimestamp desc":
		return order{newest: true}, nil
	}
	return order{}, errInvalid("orderBy", text, "Only 'name' and 'creationTimestamp desc' are supported.")
}

func (o order) compare(a, b item) int {
	if o.newest {
		if c := cmp.Compare(b.m.GetCreationTimestamp(), a.m.GetCreationTimestamp()); c != 0 {
			return c
		}
	}
	return cmp.Or(cmp.Compare(a.zone, b.zone), cmp.Compare(a.name, b.name))
}

// page picks the page of the list that the call asks for, and gives the token of
// the next one.
func page(s *Server, c *call, items []item) ([]item, *string, error) {
	ord, err := parseOrder(c.query.Get("orderBy"))
	if err != nil {
		return nil, nil, err
	}
	size, err := pageSize(c.query.Get("maxResults"))
	if err != nil {
		return nil, nil, err
	}
	match, err := ParseFilter(c.query.Get("filter"))
	if err != nil {
		return nil, nil, errInvalid("filter", c.query.Get("filter"), "Invalid list filter expression. %v", err)
	}
	slices.SortFunc(items, ord.compare)
	if items, err = c.skipPages(ord, items); err != nil {
		return nil, nil, err
	}
	var picked []item
	for _, it := range items {
		ok, err := match.Match(it.m)
		if err != nil {
			return nil, nil, errInvalid("filter", c.query.Get("filter"), "Invalid list filter expression. %v", err)
		}
		if !ok {
			continue
		}
		if len(picked) == size {
			token := c.pageToken(picked[size-1])
			return picked, &token, nil
		}
		picked = append(picked, it)
	}
	return picked, nil, nil
}

func pageSize(text string) (int, error) {
	if text == "" {
		return maxPage, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxPage {
		return 0, errInvalid("maxResults", text, "Must be a number from 0 to %d.", maxPage)
	}
	if n == 0 {
		return maxPage, nil
	}
	return n, nil
}

// querySum ties a page token to the list that it belongs to.
func (c *call) querySum() string {
	sum := sha256.Sum256([]byte(c.route.method + "\n" + c.zone + "\n" + c.query.Get("filter") + "\n" + c.query.Get("orderBy")))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// pageToken says which item was the last one given.
func (c *call) pageToken(last item) string {
	text := strings.Join([]string{c.querySum(), last.zone, last.name, last.m.GetCreationTimestamp()}, "\n")
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

func (c *call) skipPages(ord order, items []item) ([]item, error) {
	token := c.query.Get("pageToken")
	if token == "" {
		return items, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	parts := strings.Split(string(raw), "\n")
	if err != nil || len(parts) != 4 || parts[0] != c.querySum() {
		return nil, errInvalid("pageToken", token, "The token is not one of this list, filter and order.")
	}
	last := item{parts[1], parts[2], &computepb.Disk{CreationTimestamp: &parts[3]}}
	at, found := slices.BinarySearchFunc(items, last, ord.compare)
	if found {
		at++
	}
	return items[at:], nil
}

// scopes gives the places of an aggregated list that can be reached, and the
// names of those that cannot.
func (s *Server) scopes(project string) (places []place, unreachable []string) {
	for _, z := range s.zones {
		if s.unreachable[z] {
			unreachable = append(unreachable, "zones/"+z)
			continue
		}
		places = append(places, place{project, z})
	}
	return places, unreachable
}

// aggregate builds the map of an aggregated list: add gets every item, and warn
// every scope that has none on this page or could not be asked.
func (s *Server) aggregate(items []item, add func(scope string, m proto.Message), warn func(scope string, w *computepb.Warning)) {
	seen := map[string]bool{}
	for _, it := range items {
		seen[it.zone] = true
		add("zones/"+it.zone, it.m)
	}
	for _, z := range s.zones {
		switch {
		case s.unreachable[z]:
			warn("zones/"+z, scopeWarning("UNREACHABLE", "zones/"+z, "The scope '%s' could not be reached."))
		case !seen[z]:
			warn("zones/"+z, scopeWarning("NO_RESULTS_ON_PAGE", "zones/"+z, "There are no results for scope '%s' on this page."))
		}
	}
}

func scopeWarning(code, scope, text string) *computepb.Warning {
	return &computepb.Warning{Code: &code, Message: proto.String(strings.Replace(text, "%s", scope, 1)),
		Data: []*computepb.Data{{Key: proto.String("scope"), Value: &scope}}}
}
