package policy

import "testing"

func TestSizes(t *testing.T) {
	for _, test := range []struct {
		text, shown string
		want        int64
	}{
		{"0", "0", 0}, {"1", "1", 1}, {"1024", "1K", 1 << 10}, {"1500", "1500", 1500}, {"500m", "500M", 500 << 20}, {"2TiB", "2T", 2 << 40},
		{"10gb", "10G", 10 << 30}, {"8191P", "8191P", 8191 << 50}, {"512B", "512", 512},
	} {
		got, err := size(test.text)
		if err != nil || got != test.want || SizeText(got) != test.shown {
			t.Errorf("%s is %d, %q, %v; want %d, %q", test.text, got, SizeText(got), err, test.want, test.shown)
		}
	}
	for _, bad := range []string{"", "K", "1.5G", "-1", "8192P", "9223372036854775808", "5iB", "1KK", "x"} {
		if n, err := size(bad); err == nil {
			t.Errorf("%q is taken for %d", bad, n)
		}
	}
}
