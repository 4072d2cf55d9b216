package fake

import "testing"

func TestGlobsAreThoseOfThePolicyFile(t *testing.T) {
	for _, each := range []struct {
		glob, path string
		meets      bool
	}{
		{"/a/*", "/a/b", true}, {"/a/*", "/a/b/c", false}, {"/a/**", "/a/b/c", true}, {"/a/**", "/a", false}, {"/**/c", "/c", true},
		{"/**/c", "/a/b/c", true}, {"/a**", "/abc", true}, {"/a**", "/a/b", false}, {"**", "/a/b", true}, {"/?", "/a", true}, {"/?", "//", false},
		{"/{a,b*}/c", "/bcd/c", true}, {"/{a,b}/c", "/c/c", false}, {"/[a-c]", "/b", true}, {"/[!a-c]", "/d", true}, {"/[!a-c]", "/b", false},
		{"/[!a]x", "//x", false}, {"/[a/]x", "//x", false}, {"/a.b", "/aXb", false}, {`/\*`, "/*", true}, {`/\*`, "/a", false}, {"/a,b", "/a,b", true},
		{"/[", "/[", true}, {"/a}", "/a}", true},
	} {
		if glob([]string{each.glob}, "").MatchString(each.path) != each.meets {
			t.Error(each.glob, each.path, "should meet:", each.meets, translated(each.glob))
		}
	}
}

func TestSpansAreThoseOfThePolicyFile(t *testing.T) {
	for text, want := range map[string]string{"90s": "1m30s", "1h 30m": "1h30m0s", "1d": "24h0m0s", "2weeks": "336h0m0s", "500ms": "500ms"} {
		if span, ok := parseSpan(text); !ok || span.String() != want {
			t.Error(text, span, ok)
		}
	}
	for _, text := range []string{"", "5", "m", "5 parsecs", "5m!", "-5m", "99999999999999999999s"} {
		if span, ok := parseSpan(text); ok {
			t.Error(text, span)
		}
	}
}
