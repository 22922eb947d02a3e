package main

import "testing"

func TestByteSize(t *testing.T) {
	good := map[string]byteSize{"1": 1, "4096": 4096, "4K": 4096, "128k": 128 << 10, "1M": 1 << 20, "2G": 2 << 30, "5000": 5000}
	for text, want := range good {
		var got byteSize
		if err := got.Set(text); err != nil || got != want {
			t.Errorf("%s: %d, %v, want %d", text, got, err, want)
		}
		var again byteSize
		if err := again.Set(got.String()); err != nil || again != got {
			t.Errorf("%s is written %s, which reads as %d, %v", text, got.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-4K", "K", "4KK", "4.5K", "0x10", "9999999999", "4 K", "4P"} {
		if got := byteSize(7); got.Set(text) == nil {
			t.Errorf("%q is taken for %d", text, got)
		}
	}
}

func TestOwner(t *testing.T) {
	var o owner
	if err := o.Set("1000:4294967295"); err != nil || o != (owner{1000, 4294967295}) {
		t.Errorf("got %v, %v", o, err)
	}
	for _, text := range []string{"", "0", ":", "0:", ":0", "root:root", "-1:0", "0:4294967296", "0:0:0", "0 :0"} {
		if err := o.Set(text); err == nil {
			t.Errorf("%q is taken for %v", text, &o)
		}
	}
}

func FuzzByteSize(f *testing.F) {
	f.Add("128K")
	f.Add("4G")
	f.Add("18446744073709551615")
	f.Fuzz(func(t *testing.T, text string) {
		var size, again byteSize
		if size.Set(text) != nil {
			return
		}
		if size <= 0 {
			t.Errorf("%q is %d", text, size)
		}
		if err := again.Set(size.String()); err != nil || again != size {
			t.Errorf("%q is %d, written %s, read %d, %v", text, size, size.String(), again, err)
		}
	})
}
