package sidecar

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// What a client trusts and shows: certificates at https:// targets, and a bearer token at any. None of it is in an error.

const https = "https://"

// WithTLSCAFile names a PEM file of the authorities to trust, in place of the system's. For https:// targets. Default:
// SESSION_SIDECAR_TLS_CA_FILE. This and the next two are read at each handshake; while a file will not do, what it held before stays
// in use. An empty path is none, whatever the variable says. Only for New and NewAdmin, as are all of these.
func WithTLSCAFile(path string) Option {
	return func(s *settings) { s.files.authorities = file{"WithTLSCAFile", path, true} }
}

// WithTLSCertFile names a PEM file of the client certificate to show. For https:// targets. Default: SESSION_SIDECAR_TLS_CERT_FILE.
func WithTLSCertFile(path string) Option {
	return func(s *settings) { s.files.certificate = file{"WithTLSCertFile", path, true} }
}

// WithTLSKeyFile names a PEM file of its key. For https:// targets. Default: SESSION_SIDECAR_TLS_KEY_FILE.
func WithTLSKeyFile(path string) Option {
	return func(s *settings) { s.files.key = file{"WithTLSKeyFile", path, true} }
}

// WithTokenFile names a file whose first line that is not empty is the bearer token of all calls and watches, at any target. Default:
// SESSION_SIDECAR_TOKEN_FILE. It is followed: a call looks whether it changed. While it will not do, the token from before stays in use.
func WithTokenFile(path string) Option {
	return func(s *settings) { s.files.token = file{"WithTokenFile", path, true} }
}

// file is a file, and the option or variable that named it.
type file struct {
	name   string
	path   string
	option bool
}

func ofVariable(name string) file { return file{name, os.Getenv(name), false} }

func (f file) given() bool { return f.path != "" }

func (f file) wrong(problem string) error { return invalid(f.name, f.path+" "+problem) }

func (f file) read() ([]byte, error) {
	text, err := os.ReadFile(f.path)
	if err != nil {
		var at *fs.PathError
		if errors.As(err, &at) {
			err = at.Err
		}
		return nil, f.wrong("cannot be read: " + err.Error())
	}
	return text, nil
}

type credentialFiles struct{ authorities, certificate, key, token file }

func filesOfEnvironment() credentialFiles {
	return credentialFiles{
		ofVariable("SESSION_SIDECAR_TLS_CA_FILE"), ofVariable("SESSION_SIDECAR_TLS_CERT_FILE"), ofVariable("SESSION_SIDECAR_TLS_KEY_FILE"),
		ofVariable("SESSION_SIDECAR_TOKEN_FILE"),
	}
}

// credentials are those of each connection to the target, of the files as they are then.
func (f credentialFiles) credentials(target string) ([]grpc.DialOption, error) {
	transport := insecure.NewCredentials()
	if strings.HasPrefix(target, https) {
		followed := &followedTLS{TransportCredentials: credentials.NewTLS(nil), files: f}
		if err := followed.read(); err != nil {
			return nil, err
		}
		transport = followed
	} else {
		for _, each := range []file{f.authorities, f.certificate, f.key} {
			if each.option && each.given() {
				return nil, invalid(each.name, "is of no use at a target in clear text: say https://")
			}
		}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(transport)}
	if f.token.given() {
		followed := &followedToken{file: f.token}
		if err := followed.read(); err != nil {
			return nil, err
		}
		options = append(options, grpc.WithPerRPCCredentials(followed))
	}
	return options, nil
}

// followedTLS reads its files at each handshake. While they will not do, those from before stay in use.
type followedTLS struct {
	credentials.TransportCredentials // For what has to do with no file.

	files credentialFiles
	mu    sync.Mutex
	known credentials.TransportCredentials
}

func (t *followedTLS) read() error {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if authorities := t.files.authorities; authorities.given() {
		text, err := authorities.read()
		if err != nil {
			return err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return authorities.wrong("has no certificates in PEM")
		}
	}
	certificate, key := t.files.certificate, t.files.key
	if certificate.given() != key.given() {
		const both = "WithTLSCertFile and WithTLSKeyFile (or SESSION_SIDECAR_TLS_CERT_FILE and SESSION_SIDECAR_TLS_KEY_FILE)"
		return &InvalidRequestError{Message: both + " are given together, or not at all", Fields: []string{certificate.name, key.name}}
	}
	if certificate.given() {
		shown, err := certificate.read()
		if err != nil {
			return err
		}
		kept, err := key.read()
		if err != nil {
			return err
		}
		pair, err := tls.X509KeyPair(shown, kept)
		if err != nil {
			return certificate.wrong(fmt.Sprintf("and %s: %s are no certificate and its key, in PEM", key.name, key.path))
		}
		config.Certificates = []tls.Certificate{pair}
	}
	t.known = credentials.NewTLS(config)
	return nil
}

func (t *followedTLS) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	t.mu.Lock()
	_ = t.read()
	known := t.known
	t.mu.Unlock()
	return known.ClientHandshake(ctx, authority, conn)
}

// Clone is itself: nothing of it is changed by anybody.
func (t *followedTLS) Clone() credentials.TransportCredentials { return t }

// followedToken is a token in a file. While the file will not do, the token from before stays in use.
type followedToken struct {
	file file

	mu    sync.Mutex
	seen  os.FileInfo // As of which the token was read; what was read may be newer, and is then read again.
	token string
}

func (t *followedToken) read() error {
	seen, err := os.Stat(t.file.path)
	if err == nil && t.seen != nil && os.SameFile(seen, t.seen) && seen.Size() == t.seen.Size() && seen.ModTime().Equal(t.seen.ModTime()) {
		return nil
	}
	text, err := t.file.read()
	if err != nil {
		return err
	}
	token := firstLine(text)
	if token == "" {
		return t.file.wrong("is empty: it must hold a token")
	}
	if strings.ContainsFunc(token, func(letter rune) bool { return letter <= ' ' || letter > '~' }) {
		return t.file.wrong("holds no token: one is visible ASCII, without spaces")
	}
	t.seen, t.token = seen, token
	return nil
}

func firstLine(text []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.TrimSpace(line))
}

// GetRequestMetadata is what a call says beside its request.
func (t *followedToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.read()
	return map[string]string{"authorization": "Bearer " + t.token}, nil
}

// RequireTransportSecurity is false: in a mesh the mesh encrypts.
func (t *followedToken) RequireTransportSecurity() bool { return false }
