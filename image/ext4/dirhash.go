package ext4

import "math/bits"

// dirHash is ext4fs_dirhash for DX_HASH_HALF_MD4_UNSIGNED: the hash and the
// minor hash by which an htree orders the name. seed is s_hash_seed and not
// all zero.
func dirHash(name []byte, seed *[4]uint32) (hash, minor uint32) {
	buf := *seed
	for {
		var in [8]uint32
		hashWords(name, &in)
		halfMD4(&buf, &in)
		if len(name) <= 32 {
			break
		}
		name = name[32:]
	}
	hash = buf[1] &^ dxContinued
	if hash == dxHashEOF<<1 {
		hash = (dxHashEOF - 1) << 1
	}
	return hash, buf[2]
}

// hashWords is str2hashbuf_unsigned: the first 32 bytes of name as eight
// big-endian words, filled up with the length of what is left of the name.
func hashWords(name []byte, in *[8]uint32) {
	pad := uint32(len(name)) & 0xFF
	pad |= pad << 8
	pad |= pad << 16
	w := 0
	for ; w < 8 && len(name) >= 4; w++ {
		in[w] = uint32(name[0])<<24 | uint32(name[1])<<16 | uint32(name[2])<<8 | uint32(name[3])
		name = name[4:]
	}
	if w == 8 {
		return
	}
	last := pad
	for i := range len(name) {
		last = last<<8 | uint32(name[i])
	}
	in[w] = last
	for w++; w < 8; w++ {
		in[w] = pad
	}
}

// halfMD4 is half_md4_transform: three rounds of MD4 over half its input.
func halfMD4(buf *[4]uint32, in *[8]uint32) {
	const k2, k3 = 0x5A827999, 0x6ED9EBA1
	a, b, c, d := buf[0], buf[1], buf[2], buf[3]

	f := func(x, y, z uint32) uint32 { return z ^ (x & (y ^ z)) }
	for i := 0; i < 8; i += 4 {
		a = bits.RotateLeft32(a+f(b, c, d)+in[i], 3)
		d = bits.RotateLeft32(d+f(a, b, c)+in[i+1], 7)
		c = bits.RotateLeft32(c+f(d, a, b)+in[i+2], 11)
		b = bits.RotateLeft32(b+f(c, d, a)+in[i+3], 19)
	}
	g := func(x, y, z uint32) uint32 { return (x & y) + ((x ^ y) & z) }
	for i := 1; i >= 0; i-- {
		a = bits.RotateLeft32(a+g(b, c, d)+in[i]+k2, 3)
		d = bits.RotateLeft32(d+g(a, b, c)+in[i+2]+k2, 5)
		c = bits.RotateLeft32(c+g(d, a, b)+in[i+4]+k2, 9)
		b = bits.RotateLeft32(b+g(c, d, a)+in[i+6]+k2, 13)
	}
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	for i := 3; i >= 1; i -= 2 {
		a = bits.RotateLeft32(a+h(b, c, d)+in[i]+k3, 3)
		d = bits.RotateLeft32(d+h(a, b, c)+in[i+4]+k3, 9)
		c = bits.RotateLeft32(c+h(d, a, b)+in[i-1]+k3, 11)
		b = bits.RotateLeft32(b+h(c, d, a)+in[i+3]+k3, 15)
	}
	buf[0] += a
	buf[1] += b
	buf[2] += c
	buf[3] += d
}
