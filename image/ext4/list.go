package ext4

// list is a sequence that grows at its end. It is kept in chunks, so that
// growing neither copies what is there nor holds it twice.
type list[T any] struct {
	chunks [][]T
	n      int
}

const listChunk = 1 << 12 // elements

// add appends v and returns its index.
func (l *list[T]) add(v T) int {
	i := l.n
	if i/listChunk == len(l.chunks) {
		l.chunks = append(l.chunks, make([]T, listChunk))
	}
	l.chunks[i/listChunk][i%listChunk] = v
	l.n++
	return i
}

// at returns the element with index i, which stays where it is.
func (l *list[T]) at(i int) *T { return &l.chunks[i/listChunk][i%listChunk] }

// truncate forgets all but the first n elements.
func (l *list[T]) truncate(n int) { l.n = n }

// arena keeps byte strings of up to arenaChunk bytes, each in one piece.
type arena struct {
	chunks [][]byte
	used   int // bytes of the last chunk
}

const arenaChunk = 1 << 20

// alloc returns n bytes to fill in, and where they will be found again.
func (a *arena) alloc(n int) (int64, []byte) {
	if len(a.chunks) == 0 || a.used+n > arenaChunk {
		a.chunks = append(a.chunks, make([]byte, arenaChunk))
		a.used = 0
	}
	at := a.used
	a.used += n
	c := len(a.chunks) - 1
	return int64(c)*arenaChunk + int64(at), a.chunks[c][at : at+n : at+n]
}

// from returns the bytes from where alloc said, to the end of their chunk.
func (a *arena) from(at int64) []byte {
	return a.chunks[at/arenaChunk][at%arenaChunk:]
}
