package btree

// Record builds one row or index entry in SQLite's record format: a header
// with the type of each column, then the columns' values. The zero value is an
// empty record; Reset makes it one again and keeps its memory.
type Record struct {
	types, values, whole []byte
}

// Reset forgets all columns.
func (r *Record) Reset() {
	r.types, r.values = r.types[:0], r.values[:0]
}

// Null adds a column that is NULL, or the integer primary key, whose value is
// the row's number.
func (r *Record) Null() { r.types = append(r.types, 0) }

// Int adds an integer column in the fewest bytes that hold it, as SQLite does
// (schema format 4: 0 and 1 take none).
func (r *Record) Int(v int64) {
	code, size := intType(v)
	r.types = append(r.types, code)
	for i := size - 1; i >= 0; i-- {
		r.values = append(r.values, byte(v>>(8*i)))
	}
}

// Text adds a column with the bytes of s.
func (r *Record) Text(s string) {
	r.types = AppendVarint(r.types, uint64(len(s))*2+13)
	r.values = append(r.values, s...)
}

// Bytes returns the record. It is valid until the next call of any method.
func (r *Record) Bytes() []byte {
	header := uint64(len(r.types))
	size := header + 1
	for size-header != uint64(varintLen(size)) {
		size = header + uint64(varintLen(size))
	}
	r.whole = AppendVarint(r.whole[:0], size)
	r.whole = append(r.whole, r.types...)
	r.whole = append(r.whole, r.values...)
	return r.whole
}

// intType gives the serial type of v and the number of bytes of its value.
func intType(v int64) (code byte, size int) {
	switch {
	case v == 0:
		return 8, 0
	case v == 1:
		return 9, 0
	case -1<<7 <= v && v < 1<<7:
		return 1, 1
	case -1<<15 <= v && v < 1<<15:
		return 2, 2
	case -1<<23 <= v && v < 1<<23:
		return 3, 3
	case -1<<31 <= v && v < 1<<31:
		return 4, 4
	case -1<<47 <= v && v < 1<<47:
		return 5, 6
	}
	return 6, 8
}
