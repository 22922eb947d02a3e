package bucket

import (
	"fmt"
	"strings"
)

const scheme = "gs://"

// URL names an object, as in gs://BUCKET/OBJECT; without an object, a bucket.
func URL(bucket, object string) string {
	if object == "" {
		return scheme + bucket
	}
	return scheme + bucket + "/" + object
}

// ParseURL splits gs://BUCKET/OBJECT; the object may be a prefix, and empty.
func ParseURL(url string) (bucket, object string, err error) {
	rest, ok := strings.CutPrefix(url, scheme)
	bucket, object, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || strings.ContainsAny(bucket, "?#@:\\ ") {
		return "", "", fmt.Errorf("%q is not like gs://BUCKET/OBJECT", url)
	}
	return bucket, object, nil
}
