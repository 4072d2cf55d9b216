package program

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Authority signs certificates, made by openssl, for a test.
type Authority struct {
	Certificate string // The path of its own.
	folder      string
}

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	a := &Authority{folder: t.TempDir()}
	a.Certificate = filepath.Join(a.folder, "ca.crt")
	a.openssl(t, "req -x509 -days 3 -subj /CN=Authority -keyout ca.key -out ca.crt"+newKey)
	return a
}

const newKey = " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"

// Sign makes a certificate for names such as "DNS:localhost,IP:127.0.0.1", and answers its path and that of its key.
func (a *Authority) Sign(t testing.TB, name, names string) (certificate, key string) {
	t.Helper()
	a.openssl(t, "req -x509 -days 3 -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext subjectAltName="+names+
		" -subj /CN="+name+" -keyout "+name+".key -out "+name+".crt"+newKey)
	return filepath.Join(a.folder, name+".crt"), filepath.Join(a.folder, name+".key")
}

func (a *Authority) openssl(t testing.TB, words string) {
	t.Helper()
	command := exec.Command("openssl", strings.Fields(words)...)
	command.Dir = a.folder
	if told, err := command.CombinedOutput(); err != nil {
		t.Fatal(err, string(told))
	}
}
