package synth

// numberMask is as many bits as the digits of a digest that say which path it
// is have.
const numberMask = 1<<(5*numberDigits) - 1

const (
	factor  = 0x9E3779B97F4A7C15
	inverse = 0xF1DE83E19937733D // factor * inverse = 1, modulo 1<<64
	shift   = 31
)

// permute maps numbers of 60 bits onto each other.
func permute(v uint64) uint64 {
	v = v * factor & numberMask
	v ^= v >> shift
	return v * factor & numberMask
}

// unpermute undoes permute.
func unpermute(v uint64) uint64 {
	v = v * inverse & numberMask
	v ^= v >> shift // shift is more than half of the bits
	return v * inverse & numberMask
}

// random is splitmix64.
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9E3779B97F4A7C15
	z := r.state
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// below returns a number from 0 to n-1.
func (r *random) below(n int) int { return int(r.next() % uint64(n)) }

// words are what names and texts are made of.
var words = [...]string{
	"alpha", "array", "basis", "binary", "buffer", "byte", "cache", "channel", "chunk", "clock", "codec", "colour", "column", "core",
	"cursor", "daemon", "data", "delta", "device", "digest", "driver", "edge", "engine", "entry", "event", "fibre", "field", "filter",
	"font", "format", "frame", "graph", "grid", "hash", "header", "heap", "image", "index", "input", "kernel", "label", "layer",
	"ledger", "level", "lexer", "limit", "link", "list", "loader", "locale", "logger", "matrix", "memory", "method", "mirror", "module",
	"network", "node", "number", "object", "offset", "option", "output", "packet", "page", "parser", "patch", "path", "pipe", "pixel",
	"plugin", "point", "pool", "port", "proxy", "query", "queue", "range", "record", "region", "render", "result", "router", "sample",
	"schema", "scope", "script", "server", "shader", "shell", "signal", "socket", "source", "stack", "stream", "string", "symbol",
	"syntax", "table", "target", "task", "tensor", "thread", "ticket", "token", "trace", "tree", "tuple", "union", "unit", "user",
	"value", "vector", "vertex", "view", "volume", "widget", "window", "worker", "zone",
}

// text returns n bytes of words.
func (r *random) text(n int) []byte {
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[r.below(len(words))]...)
		if r.below(10) == 0 {
			b = append(b, '\n')
		} else {
			b = append(b, ' ')
		}
	}
	return b[:n]
}
