package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/fake"
	"session-sidecar/internal/program"
)

// Certificates at https:// targets, and bearer tokens: of a real sidecar that demands them.

const (
	token     = "dG9rZW4tb2YtdGhlLWRlc2s="
	nextToken = "dGhlLW5leHQtdG9rZW4tcGxlYXNl"
	local     = "DNS:localhost,IP:127.0.0.1"
)

// written is a file that holds a text.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	rewrite(t, path, text)
	return path
}

func rewrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// listening starts a sidecar with a listener of these query options.
func listening(t *testing.T, query ...string) *program.Process {
	t.Helper()
	if !strings.HasPrefix(query[0], "verbs=") {
		query = append(query, "verbs=use,issue,end,watch-own,watch-all,admin")
	}
	return program.Start(t, "--listen", "tcp://127.0.0.1:0?"+strings.Join(query, "&"))
}

// secure starts one with a certificate of the authority, and answers its target.
func secure(t *testing.T, authority *program.Authority, names string, query ...string) string {
	t.Helper()
	certificate, key := authority.Sign(t, "server", names)
	return "https://" + listening(t, append(query, "tls-cert-file="+certificate, "tls-key-file="+key)...).Another
}

func dial(t *testing.T, target string, options ...sidecar.Option) *sidecar.Client {
	t.Helper()
	return program.Client(t, target, append(options, sidecar.WithDeadline(program.Patience))...)
}

func asks(t *testing.T, client *sidecar.Client) {
	t.Helper()
	answer, err := client.Check(ctx, program.NeverIssued)
	is[*sidecar.Unknown](t, answer, err)
}

// distrusts says that one side does not trust the other, and what its answer tells. Nobody has waited for it.
func distrusts(t *testing.T, client *sidecar.Client) string {
	t.Helper()
	answer, err := client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
	away := is[*sidecar.Unreachable](t, answer, err)
	if away.Code != "UNAVAILABLE" || away.Allowed() {
		t.Errorf("%+v", away)
	}
	_, err = client.Create(ctx, sidecar.CreateOptions{})
	fails[*sidecar.UnreachableError](t, err)
	return away.Message
}

// refuses says that calls and watches are refused, and so.
func refuses(t *testing.T, client *sidecar.Client, code string) error {
	t.Helper()
	_, err := client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
	_, err2 := client.End(ctx, program.NeverIssued, sidecar.EndOptions{})
	_, err3 := watch(t, client, sidecar.WatchOptions{Everything: true}).Next(ctx)
	for _, err := range []error{err, err2, err3} {
		if fails[*sidecar.NotPermittedError](t, err).Code != code {
			t.Error(err)
		}
	}
	return errors.Join(err, err2, err3)
}

func TestHTTPSIsTLSWithTheAuthoritiesOfAFile(t *testing.T) {
	authority := program.NewAuthority(t)
	target := secure(t, authority, local)
	client := dial(t, target+"/", sidecar.WithTLSCAFile(authority.Certificate))
	if client.Target() != target {
		t.Error(client.Target())
	}
	id := create(t, client, sidecar.CreateOptions{}).ID
	w := watch(t, client, sidecar.WatchOptions{Sessions: []sidecar.Name{id}})
	next[*sidecar.Snapshot](t, w)
	next[*sidecar.SnapshotEnd](t, w)
	end(t, client, id)
	next[*sidecar.SessionEnded](t, w)
}

func TestAServerThatCannotBeTrustedIsUnreachableAndSaysWhy(t *testing.T) {
	authority := program.NewAuthority(t)
	target, elsewhere := secure(t, authority, local), secure(t, authority, "DNS:elsewhere.example")
	for _, client := range []*sidecar.Client{
		dial(t, target, sidecar.WithTLSCAFile(program.NewAuthority(t).Certificate)),
		dial(t, target), // By the system's roots.
		dial(t, elsewhere, sidecar.WithTLSCAFile(authority.Certificate)),
	} {
		if told := distrusts(t, client); !strings.Contains(told, "x509") {
			t.Error(told)
		}
	}
	distrusts(t, dial(t, strings.TrimPrefix(target, "https://"))) // Clear text.
}

func TestAClientShowsItsCertificate(t *testing.T) {
	authority := program.NewAuthority(t)
	target := secure(t, authority, local, "client-ca-file="+authority.Certificate)
	certificate, key := authority.Sign(t, "client", local)
	ca := sidecar.WithTLSCAFile(authority.Certificate)
	client := dial(t, target, ca, sidecar.WithTLSCertFile(certificate), sidecar.WithTLSKeyFile(key))
	asks(t, client)
	next[*sidecar.SnapshotEnd](t, watch(t, client, sidecar.WatchOptions{Everything: true}))
	distrusts(t, dial(t, target, ca))
}

func TestCertificatesAreReadAtEachHandshakeAndBadOnesChangeNothing(t *testing.T) {
	authority, strangers := program.NewAuthority(t), program.NewAuthority(t)
	target := secure(t, authority, local)
	texts := map[*program.Authority]string{}
	for _, each := range []*program.Authority{authority, strangers} {
		text, err := os.ReadFile(each.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		texts[each] = string(text)
	}
	trusted := written(t, texts[strangers])
	client := dial(t, target, sidecar.WithTLSCAFile(trusted))
	distrusts(t, client)
	rewrite(t, trusted, texts[authority])
	program.Eventually(t, "the next handshake succeeds", func() bool {
		answer, err := client.Check(ctx, program.NeverIssued)
		_, unknown := answer.(*sidecar.Unknown)
		return err == nil && unknown
	})
	rewrite(t, trusted, "-----BEGIN CERTIFICATE-----\n")
	next[*sidecar.SnapshotEnd](t, watch(t, client, sidecar.WatchOptions{Everything: true})) // On a connection of its own.
}

func TestATokenIsShownWithEveryCallAndEveryWatch(t *testing.T) {
	file := written(t, token)
	client := dial(t, listening(t, "token-file="+file).Another, sidecar.WithTokenFile(file))
	id := create(t, client, sidecar.CreateOptions{}).ID
	next[*sidecar.Snapshot](t, watch(t, client, sidecar.WatchOptions{Sessions: []sidecar.Name{id}}))
	advance(t, client, time.Second) // The generated stubs show it too.
	answer, err := client.With(sidecar.WithFail(sidecar.FailOpen)).Touch(ctx, id, sidecar.TouchOptions{})
	is[*sidecar.Live](t, answer, err)
}

func TestAnAdministratorShowsACertificateAndAToken(t *testing.T) {
	authority, file := program.NewAuthority(t), written(t, token)
	target := secure(t, authority, local, "client-ca-file="+authority.Certificate, "token-file="+file)
	certificate, key := authority.Sign(t, "desk", local)
	shown := []sidecar.Option{sidecar.WithTLSCAFile(authority.Certificate), sidecar.WithTLSCertFile(certificate), sidecar.WithTLSKeyFile(key)}
	for _, told := range []struct {
		options   []sidecar.Option
		permitted bool
	}{{append(shown, sidecar.WithTokenFile(file)), true}, {shown, false}} {
		admin, err := sidecar.NewAdmin(target, told.options...)
		if err != nil {
			t.Fatal(err)
		}
		defer admin.Close()
		_, err = admin.Stats(ctx, "")
		if told.permitted && err != nil {
			t.Error(err)
		}
		if !told.permitted && fails[*sidecar.NotPermittedError](t, err).Code != "UNAUTHENTICATED" {
			t.Error(err)
		}
	}
}

func TestACallerWhoIsRefusedIsNotPermitted(t *testing.T) {
	file := written(t, token)
	address := listening(t, "token-file="+file).Another
	refuses(t, dial(t, address), "UNAUTHENTICATED")
	refuses(t, dial(t, address, sidecar.WithTokenFile(written(t, nextToken))), "UNAUTHENTICATED")
	lesser := listening(t, "verbs=admin", "token-file="+file).Another
	refuses(t, dial(t, lesser, sidecar.WithTokenFile(file)), "PERMISSION_DENIED")
}

func TestTheTokenChangesWhileClientAndWatchGoOn(t *testing.T) {
	demanded, shown := written(t, token), written(t, token)
	process := listening(t, "token-file="+demanded)
	changes := func(number float64) {
		t.Helper()
		program.Eventually(t, "the sidecar has the new tokens", func() bool {
			return process.Metric(t, "listener_file_reloads_total") == number
		})
	}
	client := dial(t, process.Another, sidecar.WithTokenFile(shown))
	w := watch(t, client, sidecar.WatchOptions{Everything: true})
	next[*sidecar.SnapshotEnd](t, w)
	rewrite(t, demanded, nextToken+"\n"+token+"\n")
	changes(1)
	asks(t, client)
	rewrite(t, shown, "\n "+nextToken+" \r\n"+token+"\n") // Of two the first is shown. Empty lines are none.
	asks(t, client)
	rewrite(t, demanded, nextToken)
	changes(2)
	end(t, client, create(t, client, sidecar.CreateOptions{}).ID)
	ended, cancel := context.WithTimeout(ctx, program.Patience)
	defer cancel()
	for event, err := range w.Events(ended) { // It was cut off, and resumes with the new token.
		if err != nil {
			t.Fatal(err)
		}
		if _, is := event.(*sidecar.SessionEnded); is {
			break
		}
	}
	// Whatever becomes of the file, the last good token stays.
	for _, spoilt := range []string{"", "no token"} {
		rewrite(t, shown, spoilt)
		asks(t, client)
	}
	if err := os.Remove(shown); err != nil {
		t.Fatal(err)
	}
	asks(t, client)
	rewrite(t, demanded, token+"-and-no-other")
	for event, err := range w.Events(ended) {
		if err != nil {
			fails[*sidecar.NotPermittedError](t, err)
		} else {
			t.Error(event)
		}
	}
	refuses(t, client, "UNAUTHENTICATED")
	rewrite(t, shown, token+"-and-no-other")
	asks(t, client)
}

func TestFilesThatWillNotDoAreRefusedWhenAClientIsMade(t *testing.T) {
	authority := program.NewAuthority(t)
	certificate, key := authority.Sign(t, "client", local)
	_, other := authority.Sign(t, "other", local)
	const hidden, missing, clear, https = "not-for-anybody", "/none/such", "127.0.0.1:1", "https://127.0.0.1:1"
	words, binary, empty, folder := written(t, hidden+" to read\n"), written(t, hidden+"\xff"), written(t, " \n\n"), t.TempDir()
	ca, cert, ownKey, bearer := sidecar.WithTLSCAFile, sidecar.WithTLSCertFile, sidecar.WithTLSKeyFile, sidecar.WithTokenFile
	type options = []sidecar.Option
	for number, each := range []struct {
		target  string
		options options
		told    string
	}{
		{clear, options{ca(certificate)}, "WithTLSCAFile … https://"},
		{"unix:/s.sock", options{cert(certificate), ownKey(key)}, "WithTLSCertFile … https://"},
		{clear, options{ownKey(key)}, "WithTLSKeyFile … https://"},
		{https, options{cert(certificate)}, "WithTLSCertFile and WithTLSKeyFile"},
		{https, options{ownKey(key)}, "WithTLSCertFile and WithTLSKeyFile"},
		{https, options{ca(missing)}, "WithTLSCAFile … /none/such … no such file"},
		{https, options{ca(words)}, "WithTLSCAFile … " + words + " … PEM"},
		{https, options{ca(folder)}, "WithTLSCAFile … " + folder + " … cannot be read"},
		{https, options{cert(missing), ownKey(key)}, "WithTLSCertFile … /none/such … no such file"},
		{https, options{cert(certificate), ownKey(missing)}, "WithTLSKeyFile … /none/such … no such file"},
		{https, options{cert(words), ownKey(key)}, "WithTLSCertFile … " + words + " … PEM"},
		{https, options{cert(certificate), ownKey(words)}, "WithTLSKeyFile … " + words},
		{https, options{cert(certificate), ownKey(other)}, "WithTLSKeyFile … " + other},
		{clear, options{bearer(missing)}, "WithTokenFile … /none/such … no such file"},
		{clear, options{bearer(empty)}, "WithTokenFile … " + empty + " … empty"},
		{clear, options{bearer(words)}, "WithTokenFile … " + words + " … visible ASCII"},
		{https, options{bearer(binary)}, "WithTokenFile … " + binary + " … visible ASCII"},
	} {
		_, err := sidecar.New(each.target, each.options...)
		_, err2 := sidecar.NewAdmin(each.target, each.options...)
		for _, err := range []error{err, err2} {
			told := fails[*sidecar.InvalidRequestError](t, err)
			for _, word := range strings.Split(each.told, " … ") {
				if !strings.Contains(told.Error(), word) || strings.Contains(told.Error(), hidden) {
					t.Error(number, told)
				}
			}
		}
	}
}

func TestVariablesSayWhatOptionsDoNot(t *testing.T) {
	authority, file := program.NewAuthority(t), written(t, token)
	target := secure(t, authority, local, "client-ca-file="+authority.Certificate, "token-file="+file)
	certificate, key := authority.Sign(t, "client", local)
	clear := listening(t, "token-file="+file).Another
	t.Setenv("SESSION_SIDECAR_TARGET", target)
	t.Setenv("SESSION_SIDECAR_TLS_CA_FILE", authority.Certificate)
	t.Setenv("SESSION_SIDECAR_TLS_CERT_FILE", certificate)
	t.Setenv("SESSION_SIDECAR_TLS_KEY_FILE", key)
	t.Setenv("SESSION_SIDECAR_TOKEN_FILE", file)
	asks(t, dial(t, ""))
	// An option comes first; an empty one is none.
	refuses(t, dial(t, "", sidecar.WithTokenFile(written(t, nextToken))), "UNAUTHENTICATED")
	refuses(t, dial(t, "", sidecar.WithTokenFile("")), "UNAUTHENTICATED")
	distrusts(t, dial(t, "", sidecar.WithTLSCertFile(""), sidecar.WithTLSKeyFile("")))
	// Those for TLS mean nothing in clear text, where the token is shown too.
	t.Setenv("SESSION_SIDECAR_TLS_CA_FILE", "/none/such")
	t.Setenv("SESSION_SIDECAR_TLS_KEY_FILE", "")
	asks(t, dial(t, clear))
	// One that will not do is named.
	refused := func(name string) {
		t.Helper()
		_, err := sidecar.New(target)
		if told := fails[*sidecar.InvalidRequestError](t, err); !strings.Contains(told.Error(), name) {
			t.Error(told)
		}
	}
	refused("SESSION_SIDECAR_TLS_CA_FILE: /none/such")
	t.Setenv("SESSION_SIDECAR_TLS_CA_FILE", "")
	refused("SESSION_SIDECAR_TLS_CERT_FILE and SESSION_SIDECAR_TLS_KEY_FILE")
	t.Setenv("SESSION_SIDECAR_TLS_CERT_FILE", "")
	t.Setenv("SESSION_SIDECAR_TOKEN_FILE", "/none/such")
	refused("SESSION_SIDECAR_TOKEN_FILE: /none/such")
	// A fake needs no credentials.
	create(t, fake.Start(t).Client(), sidecar.CreateOptions{})
}

func TestTheTokenIsInNothingThatIsShownOrLogged(t *testing.T) {
	file, log := written(t, token), &logged{}
	options := []sidecar.Option{sidecar.WithTokenFile(file), log.logger()}
	client := dial(t, listening(t, "token-file="+written(t, nextToken)).Another, options...)
	away := dial(t, program.Nobody(t), options...)
	_, err := away.Create(ctx, sidecar.CreateOptions{})
	fails[*sidecar.UnreachableError](t, err)
	answer, err2 := away.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
	told := fmt.Sprintf("%v %+v %#v %+v", *client, *away, *client, errors.Join(err, err2, refuses(t, client, "UNAUTHENTICATED"))) +
		fmt.Sprintf("%+v %#v", answer, answer) + log.String()
	if strings.Contains(told, token) || strings.Contains(told, nextToken) || !strings.Contains(told, "does not answer") {
		t.Error(told)
	}
}
