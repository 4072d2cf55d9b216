package fake

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	pb "session-sidecar/proto/sessionsidecar/v1"
)

// The rules that decide which touches count.

// verdict says whether a touch counts, and the rule that decided.
type verdict struct {
	rule   string
	counts bool
}

// user says whether it is surely a person's: declared, or known by a rule. Such activity renews the budget of WORK.
func (v verdict) user() bool { return v.counts && v.rule != "unmatched" }

// judge says whether a touch counts. BACKGROUND never does; USER does, unless an own rule about USER says otherwise. What declares
// nothing goes through the own rules; if there are none and hints came, the built-in ones; then it is `unmatched`.
func (l *limits) judge(activity pb.Activity, hints *pb.TouchHints, reportsInput bool) verdict {
	for _, rule := range l.rules {
		if rule.kind == activity && rule.admits(hints) {
			return verdict{rule.name, rule.counts && activity != pb.Activity_ACTIVITY_BACKGROUND}
		}
	}
	switch {
	case activity == pb.Activity_ACTIVITY_USER:
		return verdict{"declared-user", true}
	case activity == pb.Activity_ACTIVITY_BACKGROUND:
		return verdict{"declared-background", false}
	case hints != nil && len(l.rules) == 0:
		if built, decides := builtIn(hints, reportsInput); decides {
			return built
		}
	}
	return verdict{"unmatched", l.unmatchedCounts}
}

func builtIn(hints *pb.TouchHints, reportsInput bool) (verdict, bool) {
	purposes := purposesOf(hints.GetSecPurpose())
	switch {
	case slices.Contains(purposes, "prefetch") || slices.Contains(purposes, "prerender"):
		return verdict{"prefetch", false}, true
	case hints.GetPageVisibility() == pb.PageVisibility_PAGE_VISIBILITY_HIDDEN:
		return verdict{"hidden-page", false}, true
	case strings.EqualFold(hints.GetSecFetchMode(), "navigate") && hints.GetSecFetchUser() == "?1":
		return verdict{"user-navigation", true}, true
	// The report itself is made by a script too, and is what the others are ignored for.
	case strings.EqualFold(hints.GetSecFetchDest(), "empty") && !hints.GetInputReport() && reportsInput:
		return verdict{"script-request", false}, true
	}
	return verdict{}, false
}

func purposesOf(value string) []string {
	return strings.FieldsFunc(strings.ToLower(value), func(letter rune) bool { return strings.ContainsRune(";, ", letter) })
}

// rule is one rule of a policy. A touch must meet all conditions that are set; what is not known of a request meets none.
type rule struct {
	name       string
	counts     bool
	kind       pb.Activity
	visibility pb.PageVisibility // 0: any.
	words      map[string][]string
	host, path *regexp.Regexp
}

// Where the words of a rule are found in the hints.
var hintWords = map[string]func(*pb.TouchHints) string{
	"method": (*pb.TouchHints).GetMethod, "sec_fetch_user": (*pb.TouchHints).GetSecFetchUser,
	"sec_fetch_mode": (*pb.TouchHints).GetSecFetchMode, "sec_fetch_dest": (*pb.TouchHints).GetSecFetchDest,
	"sec_purpose": (*pb.TouchHints).GetSecPurpose,
}

// admits says whether a touch of the kind that this is about meets it.
func (r *rule) admits(hints *pb.TouchHints) bool {
	if hints == nil {
		return r.visibility == 0 && len(r.words) == 0 && r.host == nil && r.path == nil
	}
	for key, wanted := range r.words {
		value := strings.ToLower(hintWords[key](hints))
		said := []string{value}
		if key == "sec_purpose" {
			said = append(said, purposesOf(value)...)
		}
		if value == "" || !slices.ContainsFunc(wanted, func(word string) bool { return slices.Contains(said, strings.ToLower(word)) }) {
			return false
		}
	}
	path, _, _ := strings.Cut(hints.GetPath(), "?")
	return (r.visibility == 0 || r.visibility == hints.GetPageVisibility()) && meets(r.host, hints.GetHost()) && meets(r.path, path)
}

func meets(pattern *regexp.Regexp, value string) bool {
	return pattern == nil || (value != "" && pattern.MatchString(value))
}

func readRule(given table) (rule, error) {
	read := rule{words: map[string][]string{}}
	texts := map[string][]string{}
	for key, value := range given {
		switch value := value.(type) {
		case string:
			texts[key] = []string{value}
		case []any:
			for _, each := range value {
				texts[key] = append(texts[key], fmt.Sprint(each))
			}
		default:
			return read, fmt.Errorf("rules: %s must be a text or a list of texts", key)
		}
	}
	one := func(key string) string { return strings.Join(texts[key], "") }
	read.name, read.counts = one("name"), one("verdict") == "count"
	if read.name == "" || (!read.counts && one("verdict") != "ignore") {
		return read, fmt.Errorf(`rules: a rule has a name, and "count" or "ignore" for its verdict`)
	}
	for key := range texts {
		switch key {
		case "name", "verdict":
		case "kind":
			read.kind = pb.Activity(pb.Activity_value["ACTIVITY_"+strings.ToUpper(one(key))])
		case "visibility":
			read.visibility = pb.PageVisibility(pb.PageVisibility_value["PAGE_VISIBILITY_"+strings.ToUpper(one(key))])
		case "host":
			read.host = glob(texts[key], "(?i)")
		case "path":
			read.path = glob(texts[key], "")
		default:
			if hintWords[key] == nil {
				return read, fmt.Errorf("rules: there is no key %s", key)
			}
			read.words[key] = texts[key]
		}
	}
	return read, nil
}

// glob are globs as the sidecar has them: `*` and `?` stay within a segment between slashes, `**` as a whole segment crosses them,
// `{a,b}` is either.
func glob(texts []string, flags string) *regexp.Regexp {
	var all []string
	for _, text := range texts {
		all = append(all, translated(text))
	}
	return regexp.MustCompile(flags + `(?s)\A(?:` + strings.Join(all, "|") + `)\z`)
}

func translated(text string) string {
	var out strings.Builder
	depth := 0
	for rest := text; rest != ""; {
		atSegment := len(rest) == len(text) || text[len(text)-len(rest)-1] == '/'
		size := 1
		switch {
		case atSegment && strings.HasPrefix(rest, "**/"):
			size = 3
			out.WriteString("(?:.*/)?")
		case atSegment && rest == "**":
			size = 2
			out.WriteString(".*")
		case rest[0] == '*':
			size = len(rest) - len(strings.TrimLeft(rest, "*"))
			out.WriteString("[^/]*")
		case rest[0] == '?':
			out.WriteString("[^/]")
		case rest[0] == '[' && strings.Contains(rest[min(2, len(rest)):], "]"):
			size = set(&out, rest)
		case rest[0] == '\\' && len(rest) > 1:
			size = 2
			out.WriteString(regexp.QuoteMeta(rest[1:2]))
		case rest[0] == '{':
			depth++
			out.WriteString("(?:")
		case rest[0] == '}' && depth > 0:
			depth--
			out.WriteString(")")
		case rest[0] == ',' && depth > 0:
			out.WriteString("|")
		default:
			out.WriteString(regexp.QuoteMeta(rest[:1]))
		}
		rest = rest[size:]
	}
	out.WriteString(strings.Repeat(")", depth))
	return out.String()
}

var inSet = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `^`, `\^`, `&`, `\&`, `~`, `\~`)

// set translates one of [abc], [a-z], [!a] at the start of `rest`, and answers its size. It never stands for a slash.
func set(out *strings.Builder, rest string) int {
	at, no := 1, ""
	if rest[1] == '!' || rest[1] == '^' {
		at, no = 2, "^/"
	}
	end := at + 1 + strings.IndexByte(rest[at+1:], ']')
	letters := inSet.Replace(rest[at:end])
	if no == "" {
		letters = strings.ReplaceAll(letters, "/", "")
	}
	out.WriteString("[" + no + letters + "]")
	return end + 1
}
