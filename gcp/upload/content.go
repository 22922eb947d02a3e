package upload

import (
	"os"

	"bigdisk/gcp/bucket"
)

// File is what is in an open file, size bytes of it, as it is, to be sent in
// parts. Identity tells its bytes from others.
func File(f *os.File, size int64, identity string) bucket.Content {
	return &rawFile{file: f, size: size, identity: identity}
}
