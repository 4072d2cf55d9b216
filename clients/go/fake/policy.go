package fake

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Policies as the sidecar's policy file has them.

const (
	day = 24 * time.Hour
	// Longer than any absolute timeout: the idle timeout of a session that inactivity does not end.
	never = 36500 * day
)

// holdLimits are what holds of one kind may do.
type holdLimits struct {
	maxTTL  time.Duration
	maxLive int
}

// limits are what a policy says to one session.
type limits struct {
	policy                       string
	revision                     uint64
	idleTimeout, absoluteTimeout time.Duration
	idlePoints, absolutePoints   []time.Duration
	unmatchedCounts              bool
	rules                        []rule
	maxExtensions                int // -1: any number.
	tombstoneTTL                 time.Duration
	work                         holdLimits
	budget                       time.Duration
	presence                     *holdLimits
	leaveGrace, lostGrace        time.Duration
	passive, atMost, enforced    bool
	minIDLength                  int
	maxPerSubject                int // 0: any number.
	endsOldest                   bool
	ownIdle, ownAbsolute         time.Duration
}

// stricter are these limits with stricter timeouts for one session, 0 for none. The warning points stay, as far as they fit.
func (l *limits) stricter(idle, absolute time.Duration) *limits {
	if idle == 0 && absolute == 0 {
		return l
	}
	own := *l
	own.ownIdle, own.ownAbsolute = idle, absolute
	if idle > 0 {
		own.idleTimeout = min(idle, l.idleTimeout)
	}
	if absolute > 0 {
		own.absoluteTimeout = min(absolute, l.absoluteTimeout)
	}
	own.idlePoints, own.absolutePoints = points(l.idlePoints, own.idleTimeout), points(l.absolutePoints, own.absoluteTimeout)
	return &own
}

// points are leads as they are in force: the longest first, none over half of the timeout, each once.
func points(leads []time.Duration, timeout time.Duration) []time.Duration {
	var own []time.Duration
	for _, lead := range leads {
		own = append(own, min(lead, timeout/2))
	}
	slices.Sort(own)
	own = slices.Compact(own)
	slices.Reverse(own)
	return own
}

type table = map[string]any

// What a new user meets; each key of it but those of Create's own is one of docs/options.md.
var usual = table{
	"revision": int64(0), "idle_timeout": "15m", "absolute_timeout": "12h", "warn_before": []any{"2m", "1m"},
	"absolute_warn_before": []any{"10m", "2m"}, "unmatched": "count", "max_extensions": int64(-1), "tombstone_ttl": "24h",
	"work_hold": "on", "presence": "off", "passive": false, "at_most": false, "enforce": true, "min_id_length": int64(16),
	"max_sessions_per_subject": int64(0), "at_subject_cap": "refuse", "preset": "", "rules": []table(nil),
}

var presets = map[string]table{
	"nist-aal1":     {"idle_timeout": "1d", "absolute_timeout": "30d"},
	"nist-aal2":     {"idle_timeout": "1h", "absolute_timeout": "1d", "unmatched": "ignore"},
	"nist-aal3":     {"unmatched": "ignore"},
	"pci-dss-8.2.8": {"unmatched": "ignore"},
	"owasp-high-value": {
		"idle_timeout": "5m", "absolute_timeout": "4h", "unmatched": "ignore", "max_sessions_per_subject": int64(1), "at_subject_cap": "end-oldest",
	},
}

// readPolicies reads the policies of a file. Its other tables are for the sidecar.
func readPolicies(text string) (map[string]*limits, error) {
	var file struct{ Policy map[string]table }
	if _, err := toml.Decode(text, &file); err != nil {
		return nil, err
	}
	if len(file.Policy) == 0 {
		return nil, fmt.Errorf("there is no [policy.NAME] in it")
	}
	all := map[string]*limits{}
	for name, given := range file.Policy {
		read, err := readPolicy(name, given)
		if err != nil {
			return nil, fmt.Errorf("policy %s: %w", name, err)
		}
		all[name] = read
	}
	return all, nil
}

// reader reads the keys of a table, and keeps the first problem.
type reader struct {
	keys    table
	problem error
}

func (r *reader) fail(key, wants string) {
	if r.problem == nil {
		r.problem = fmt.Errorf("%s must be %s", key, wants)
	}
}

func of[T any](r *reader, key, wants string) T {
	value, is := r.keys[key].(T)
	if !is {
		r.fail(key, wants)
	}
	return value
}

func (r *reader) number(key string) int { return int(of[int64](r, key, "a whole number")) }
func (r *reader) flag(key string) bool  { return of[bool](r, key, "true or false") }
func (r *reader) span(key string) time.Duration {
	span, ok := parseSpan(of[string](r, key, `a duration like "90s" or "15m"`))
	if !ok {
		r.fail(key, `a duration like "90s" or "15m"`)
	}
	return span
}

// choice says whether it is the second of two words.
func (r *reader) choice(key, first, second string) bool {
	word := of[string](r, key, first+" or "+second)
	if word != first && word != second {
		r.fail(key, strconv.Quote(first)+" or "+strconv.Quote(second))
	}
	return word == second
}

func (r *reader) spans(key string) (spans []time.Duration) {
	for _, each := range of[[]any](r, key, "a list of durations") {
		one := &reader{keys: table{key: each}}
		spans = append(spans, one.span(key))
		if r.problem == nil {
			r.problem = one.problem
		}
	}
	return spans
}

// switched reads a switch that may be a table; nil if it is off.
func (r *reader) switched(key string, usual table) *reader {
	inner := &reader{keys: maps.Clone(usual)}
	switch value := r.keys[key].(type) {
	case string:
		if !r.choice(key, "off", "on") {
			return nil
		}
	case table:
		for name, each := range value {
			if _, known := usual[name]; !known {
				r.fail(key, "a switch or a table without "+name)
			}
			inner.keys[name] = each
		}
	default:
		r.fail(key, `"on", "off" or a table`)
	}
	return inner
}

func readPolicy(name string, given table) (*limits, error) {
	keys := maps.Clone(usual)
	if preset, is := given["preset"].(string); is {
		base, known := presets[preset]
		if !known {
			return nil, fmt.Errorf("there is no preset %q: %s", preset, strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
		}
		maps.Copy(keys, table{"work_hold": "off", "at_most": true, "min_id_length": int64(22)})
		maps.Copy(keys, base)
	}
	for key, value := range given {
		if _, known := usual[key]; !known {
			return nil, fmt.Errorf("there is no key %s", key)
		}
		keys[key] = value
	}
	r := &reader{keys: keys}
	l := &limits{
		policy: name, revision: uint64(r.number("revision")), absoluteTimeout: r.span("absolute_timeout"), idleTimeout: r.span("idle_timeout"),
		unmatchedCounts: !r.choice("unmatched", "count", "ignore"), maxExtensions: r.number("max_extensions"),
		tombstoneTTL: r.span("tombstone_ttl"), passive: r.flag("passive"), atMost: r.flag("at_most"), enforced: r.flag("enforce"),
		minIDLength: r.number("min_id_length"), maxPerSubject: r.number("max_sessions_per_subject"),
		endsOldest: r.choice("at_subject_cap", "refuse", "end-oldest"),
	}
	leads := r.spans("warn_before")
	_, hasIdle := given["idle_timeout"]
	_, hasLeads := given["warn_before"]
	switch {
	case l.passive && (hasIdle || (hasLeads && len(leads) > 0)):
		return nil, fmt.Errorf("idle_timeout and warn_before cannot be set with passive: inactivity does not end it")
	case l.passive:
		l.idleTimeout, leads = never, nil
	case l.idleTimeout > l.absoluteTimeout:
		return nil, fmt.Errorf("idle_timeout must be at most absolute_timeout, %s", l.absoluteTimeout)
	}
	l.idlePoints, l.absolutePoints = points(leads, l.idleTimeout), points(r.spans("absolute_warn_before"), l.absoluteTimeout)
	l.budget = 2 * time.Hour
	if work := r.switched("work_hold", table{"max_ttl": "5m", "budget": "2h", "max_live": int64(8)}); work != nil {
		l.work, l.budget = holdLimits{work.span("max_ttl"), work.number("max_live")}, work.span("budget")
		r.problem = first(r.problem, work.problem)
	}
	window := min(l.idleTimeout, l.absoluteTimeout)
	graces := table{"leave_grace": "30s", "lost_grace": fmt.Sprint(window.Milliseconds(), "ms"), "max_ttl": "10m", "max_live": int64(64)}
	if open := r.switched("presence", graces); open != nil {
		l.presence = &holdLimits{open.span("max_ttl"), open.number("max_live")}
		l.leaveGrace, l.lostGrace = open.span("leave_grace"), open.span("lost_grace")
		r.problem = first(r.problem, open.problem)
	}
	for _, each := range of[[]table](r, "rules", "a list of tables") {
		rule, err := readRule(each)
		r.problem = first(r.problem, err)
		l.rules = append(l.rules, rule)
	}
	return l, r.problem
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	spanPart = regexp.MustCompile(`(\d+)\s*([A-Za-z]+)\s*`)
	units    = map[string]time.Duration{
		"nsec ns": time.Nanosecond, "usec us": time.Microsecond, "msec ms": time.Millisecond, "seconds second secs sec s": time.Second,
		"minutes minute mins min m": time.Minute, "hours hour hrs hr h": time.Hour, "days day d": day, "weeks week wks wk w": 7 * day,
		"months month M": 2630016 * time.Second, "years year yrs yr y": 31557600 * time.Second,
	}
)

// parseSpan reads a duration as the policy file has them.
func parseSpan(text string) (time.Duration, bool) {
	var sum time.Duration
	parts := spanPart.FindAllStringSubmatch(text, -1)
	for _, part := range parts {
		count, err := strconv.ParseInt(part[1], 10, 64)
		length := time.Duration(0)
		for words, each := range units {
			if slices.Contains(strings.Fields(words), part[2]) {
				length = each
			}
		}
		if err != nil || length == 0 {
			return 0, false
		}
		sum += time.Duration(count) * length
	}
	return sum, len(parts) > 0 && spanPart.ReplaceAllString(text, "") == ""
}
