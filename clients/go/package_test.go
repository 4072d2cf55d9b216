package sidecar_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The module as it is shipped.

func TestTheGeneratedCodeIsThatOfTheProtoFiles(t *testing.T) {
	made := t.TempDir()
	if told, err := exec.Command("./generate.sh", made).CombinedOutput(); err != nil {
		t.Fatal(err, string(told))
	}
	read := func(root string) map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(filepath.Join(root, "proto"), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			name, _ := filepath.Rel(root, path)
			files[name] = string(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	kept, new := read("."), read(made)
	for name, text := range new {
		if kept[name] != text {
			t.Errorf("%s is not what its .proto makes: run clients/go/generate.sh", name)
		}
		delete(kept, name)
	}
	if len(new) != 6 || len(kept) > 0 {
		t.Error("files that no .proto makes:", kept, len(new))
	}
}

// What go.mod requires is what the tests run with.
func TestTheRequirementsAreWhatIsTested(t *testing.T) {
	module, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	packages, err := os.ReadFile("../../tests/packages-go.txt")
	if err != nil {
		t.Fatal(err)
	}
	for required, name := range map[string]string{
		"google.golang.org/grpc": "golang-google-grpc-dev", "google.golang.org/protobuf": "golang-google-protobuf-dev",
		"github.com/BurntSushi/toml": "golang-github-burntsushi-toml-dev", "golang.org/x/net": "golang-golang-x-net-dev",
		"golang.org/x/sys": "golang-golang-x-sys-dev", "golang.org/x/text": "golang-golang-x-text-dev",
	} {
		said := regexp.MustCompile(`(?m)^\t` + regexp.QuoteMeta(required) + ` v(\S+)`).FindSubmatch(module)
		tested := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `=(?:\d+:)?([\d.]+)`).FindSubmatch(packages)
		if said == nil || tested == nil || !bytes.Equal(said[1], tested[1]) {
			t.Errorf("%s: go.mod says %s, and %s is %s", required, said, name, tested)
		}
	}
	// And nothing else is imported.
	imports, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(imports)) {
		known := strings.HasPrefix(path, "session-sidecar")
		for _, line := range strings.Split(string(module), "\n") {
			name, _, found := strings.Cut(strings.TrimSpace(line), " v")
			known = known || (found && (path == name || strings.HasPrefix(path, name+"/")))
		}
		// Debian's genproto is of a time when it was one module, and stands on the old protobuf module.
		if !known && !strings.HasPrefix(path, "github.com/golang/protobuf/") {
			t.Errorf("go.mod does not require %s", path)
		}
	}
}

func TestAllIsFormatted(t *testing.T) {
	told, err := exec.Command("gofmt", "-l", ".").CombinedOutput()
	if err != nil || len(told) > 0 {
		t.Error(err, string(told))
	}
}
