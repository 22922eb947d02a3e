package pipeline

import (
	"errors"
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	tests := []struct {
		name string
		opts BuildOptions
		want string
	}{
		{"no output", BuildOptions{Lock: "m"}, "no output file"},
		{"nothing to build", BuildOptions{Output: "x.sqsh"}, "nothing to build"},
		{"selection without lock", BuildOptions{Output: "x.sqsh", Paths: []string{"p"}, Latest: 1}, "give --lock"},
		{"no suffix", BuildOptions{Output: "x", Lock: "m"}, "no format goes with this suffix"},
		{"format", BuildOptions{Output: "x", Lock: "m", Format: "iso"}, `format "iso"`},
		{"ext4 compression", BuildOptions{Output: "x.raw", Lock: "m", Compression: "zstd"}, "ext4 does not compress"},
		{"negative", BuildOptions{Output: "x.raw", Lock: "m", Jobs: -1}, "negative"},
		{"compression", BuildOptions{Output: "x.sqsh", Lock: "m", Compression: "bzip2"}, "bzip2"},
		{"block size", BuildOptions{Output: "x.sqsh", Lock: "m", BlockSize: 5000}, "block size 5000"},
		{"ext4 block size", BuildOptions{Output: "x.ext4", Lock: "m", BlockSize: 8192}, "blocks of 4096 bytes"},
		{"no store", BuildOptions{Output: "x.sqsh", Lock: "m"}, "give --from"},
		{"bad key", BuildOptions{Output: "x.sqsh", Lock: "m", From: []string{"/"}, TrustedKeys: []string{"k"}}, "trusted key"},
		{"bad store", BuildOptions{Output: "x.sqsh", Lock: "m", From: []string{"ftp://host/"}}, "--from"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := Build(t.Context(), test.opts)
			if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %v about %q", err, ErrUsage, test.want)
			}
		})
	}
}
