// Package crc joins CRC-32 checksums: from those of two pieces comes that of
// the pieces in a row, without their bytes. Parts of an object are summed
// where they are made, in any order, and the whole is checked all the same.
//
// A CRC-32 is a polynomial over GF(2) modulo the checksum's own; appending n
// zero bytes multiplies it by x^(8n). The representation is that of hash/crc32
// and zlib: bit 31 is the coefficient of x^0.
package crc

// one is the polynomial 1.
const one = 1 << 31

// Join returns the checksum of a piece whose checksum is a, followed by one of
// lengthB bytes whose checksum is b. The polynomial is one of hash/crc32's
// constants, such as crc32.Castagnoli.
func Join(poly, a, b uint32, lengthB int64) uint32 {
	return multiply(poly, power(poly, lengthB), a) ^ b
}

// Zeros returns the checksum of n zero bytes.
func Zeros(poly uint32, n int64) uint32 {
	return ^multiply(poly, power(poly, n), ^uint32(0))
}

// multiply returns a times b modulo poly.
func multiply(poly, a, b uint32) uint32 {
	var product uint32
	for bit := uint32(one); bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= poly
		}
	}
	return product
}

// power returns x^(8n) modulo poly.
func power(poly uint32, n int64) uint32 {
	product := uint32(one)
	for square := uint32(one >> 8); n > 0; n >>= 1 {
		if n&1 != 0 {
			product = multiply(poly, square, product)
		}
		square = multiply(poly, square, square)
	}
	return product
}
