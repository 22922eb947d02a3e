package btree

// AppendVarint appends v as SQLite writes a variable-length integer: one to
// nine bytes, most significant first, seven bits in each but the ninth, which
// has eight.
func AppendVarint(b []byte, v uint64) []byte {
	if v < 1<<7 {
		return append(b, byte(v))
	}
	if v >= 1<<56 {
		for shift := 57; shift > 1; shift -= 7 {
			b = append(b, byte(v>>(shift))|0x80)
		}
		return append(b, byte(v))
	}
	n := varintLen(v)
	for i := n - 1; i > 0; i-- {
		b = append(b, byte(v>>(7*i))|0x80)
	}
	return append(b, byte(v)&0x7f)
}

// varintLen is the number of bytes that v takes, for v below 1<<56.
func varintLen(v uint64) int {
	n := 1
	for v >= 1<<7 {
		v >>= 7
		n++
	}
	return n
}
