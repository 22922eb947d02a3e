package gcetest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// ImageInfo is what an import learns from the archive.
type ImageInfo struct {
	DiskSizeGB   int64
	ArchiveBytes int64
}

// ImageSource looks at the archive at a https://storage.googleapis.com/… URL. An
// error makes the import fail inside its operation with INVALID_IMAGE_TAR.
type ImageSource func(ctx context.Context, url string) (ImageInfo, error)

// tarMagic is the magic and version of GNU's header ("ustar  \0"), at offset 257.
var tarMagic = []byte("ustar  \x00")

// CheckImageTar reads a disk.raw.tar.gz to its end as the import does: gzip, tar
// in GNU or OLDGNU format, one file named disk.raw whose size is a whole number
// of GiB.
func CheckImageTar(r io.Reader) (ImageInfo, error) {
	counted := &countingReader{r: r}
	zr, err := gzip.NewReader(counted)
	if err != nil {
		return ImageInfo{}, fmt.Errorf("not a gzip file: %w", err)
	}
	first := make([]byte, 512)
	if _, err := io.ReadFull(zr, first); err != nil {
		return ImageInfo{}, fmt.Errorf("no tar header: %w", err)
	}
	if !bytes.Equal(first[257:265], tarMagic) {
		return ImageInfo{}, errors.New("the tar archive format is not supported. Supported formats are: GNU and OLDGNU")
	}
	size, err := soleMember(tar.NewReader(io.MultiReader(bytes.NewReader(first), zr)))
	if err != nil {
		return ImageInfo{}, err
	}
	if _, err := io.Copy(io.Discard, zr); err != nil { // the end of the archive, and gzip's checksum
		return ImageInfo{}, fmt.Errorf("read archive: %w", err)
	}
	return ImageInfo{DiskSizeGB: size >> 30, ArchiveBytes: counted.n}, nil
}

func soleMember(tr *tar.Reader) (int64, error) {
	h, err := tr.Next()
	if err != nil {
		return 0, fmt.Errorf("read tar header: %w", err)
	}
	if h.Name != "disk.raw" || h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeGNUSparse {
		return 0, fmt.Errorf("the file inside the tar archive was named %q, not disk.raw", h.Name)
	}
	if h.Size == 0 || h.Size%(1<<30) != 0 {
		return 0, fmt.Errorf("disk.raw has %d bytes, which is not a whole number of GiB", h.Size)
	}
	if _, err := io.Copy(io.Discard, tr); err != nil {
		return 0, fmt.Errorf("read disk.raw: %w", err)
	}
	switch next, err := tr.Next(); {
	case err == io.EOF:
		return h.Size, nil
	case err != nil:
		return 0, fmt.Errorf("read after disk.raw: %w", err)
	default:
		return 0, fmt.Errorf("a second file %q inside the tar archive", next.Name)
	}
}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// EmulatorSource fetches archives from a Cloud Storage emulator, whose base URL
// has the form http://host:port, and checks them with [CheckImageTar].
func EmulatorSource(base string) ImageSource {
	return func(ctx context.Context, source string) (ImageInfo, error) {
		bucket, object, ok := strings.Cut(strings.TrimPrefix(source, "https://storage.googleapis.com/"), "/")
		if !ok {
			return ImageInfo{}, fmt.Errorf("%s names no object", source)
		}
		if plain, err := url.PathUnescape(object); err == nil {
			object = plain
		}
		at := strings.TrimSuffix(base, "/") + "/storage/v1/b/" + url.PathEscape(bucket) + "/o/" + url.PathEscape(object) + "?alt=media"
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return ImageInfo{}, fmt.Errorf("fetch %s: %w", source, err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return ImageInfo{}, fmt.Errorf("fetch %s: %w", source, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return ImageInfo{}, fmt.Errorf("fetch %s: %s", source, resp.Status)
		}
		return CheckImageTar(resp.Body)
	}
}
