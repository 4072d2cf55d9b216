package sidecar_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Users have modules, and the tests a GOPATH of Debian's sources. Here these stand in the modules' place, so that go.mod, the version of
// Go that it says, and what it requires are tried as users have them.
func TestItBuildsAsAModule(t *testing.T) {
	folder, sources := t.TempDir(), filepath.Join(os.Getenv("GOPATH"), "src")
	module, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	// Debian's genproto is of a time when it was one module, and stands on the old protobuf module; its gRPC has code for a newer Go
	// than its go.mod says.
	copied := map[string]string{"google.golang.org/genproto/googleapis/rpc": "1.21", "google.golang.org/grpc": "1.21"}
	lines := []string{string(module), "require github.com/golang/protobuf v1.5.4", "replace github.com/golang/protobuf => " + sources + "/github.com/golang/protobuf"}
	for _, found := range regexp.MustCompile(`(?m)^\t(\S+) v`).FindAllStringSubmatch(string(module), -1) {
		path, place := found[1], filepath.Join(sources, found[1])
		if version, is := copied[path]; is {
			to := filepath.Join(folder, filepath.Base(path))
			if told, err := exec.Command("cp", "-rL", place, to).CombinedOutput(); err != nil {
				t.Fatal(err, string(told))
			}
			write(t, filepath.Join(to, "go.mod"), fmt.Sprintf("module %s\n\ngo %s\n", path, version))
			place = to
		}
		lines = append(lines, fmt.Sprintf("replace %s => %s", path, place))
	}
	write(t, filepath.Join(folder, "go.mod"), strings.Join(lines, "\n")+"\n")
	build := exec.Command("go", "build", "-trimpath", "-modfile", filepath.Join(folder, "go.mod"), "./...")
	build.Env = append(os.Environ(), "GO111MODULE=on", "GOPROXY=off", "GOFLAGS=-mod=readonly")
	if build.Dir, err = filepath.EvalSymlinks(filepath.Join(sources, "session-sidecar")); err != nil {
		t.Fatal(err)
	}
	if told, err := build.CombinedOutput(); err != nil {
		t.Error(err, string(told))
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The first half of what docs/go.md says to do; the other one needs the modules of the world.
func TestTheModuleCanBePutBesideYours(t *testing.T) {
	page, err := os.ReadFile("../../docs/go.md")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile("(?s)```sh\n(go mod edit .*?) && go mod tidy\n```").FindSubmatch(page)
	if said == nil {
		t.Fatal("docs/go.md does not say it")
	}
	folder := t.TempDir()
	write(t, filepath.Join(folder, "go.mod"), "module example\n\ngo 1.23\n")
	edit := exec.Command("sh", "-c", string(said[1]))
	edit.Dir, edit.Env = folder, append(os.Environ(), "GO111MODULE=on", "GOPROXY=off")
	if told, err := edit.CombinedOutput(); err != nil {
		t.Fatal(err, string(told))
	}
	made, err := os.ReadFile(filepath.Join(folder, "go.mod"))
	if err != nil || !strings.Contains(string(made), "replace session-sidecar => ../session-sidecar/clients/go") {
		t.Error(string(made), err)
	}
}
