// Package docs has the test of what the documentation shows.
package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"session-sidecar/internal/program"
)

const pages = "../../../../"

var example = regexp.MustCompile("(?ms)^```go\n(.*?)^```")

func examples(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(pages + page)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, each := range example.FindAllStringSubmatch(string(text), -1) {
		found = append(found, each[1])
	}
	return found
}

// write writes an example as it stands, if gofmt would leave it so.
func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if told, err := exec.Command("gofmt", "-l", path).CombinedOutput(); err != nil || len(told) > 0 {
		t.Error("not formatted:", text, string(told), err)
	}
}

// gone runs the go command over these files, beside a real sidecar.
func gone(t *testing.T, target, verb string, files ...string) string {
	t.Helper()
	command := exec.Command("go", append([]string{verb}, files...)...)
	// Without a go.mod the patterns of net/http would be those of Go 1.21.
	command.Env = append(os.Environ(), "SESSION_SIDECAR_TARGET="+target, "GODEBUG=httpmuxgo121=0")
	told, err := command.CombinedOutput()
	if err != nil {
		t.Error(verb, err, string(told))
	}
	return string(told)
}

func TestWhatThePagesShowRuns(t *testing.T) {
	process, folder := program.Start(t), t.TempDir()
	var site []string
	programs := 0
	for _, page := range []string{"docs/go.md"} {
		for number, text := range examples(t, page) {
			name := filepath.Join(folder, fmt.Sprintf("%s-%d", strings.ReplaceAll(page, "/", "-"), number))
			switch {
			case strings.HasPrefix(text, "package main\n"):
				programs++
				write(t, name+".go", text)
				gone(t, process.TCP, "vet", name+".go")
				if told := gone(t, process.TCP, "run", name+".go"); !strings.Contains(told, "are left\n") {
					t.Error(told)
				}
			case strings.HasPrefix(text, "package site\n"):
				if strings.Contains(text, "testing.T") {
					name += "_test"
				}
				write(t, name+".go", text)
				site = append(site, name+".go")
			default:
				t.Error("neither a program nor a file of the site:", text)
			}
		}
	}
	drive, err := os.ReadFile("testdata/drive_test.go.txt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "drive_test.go"), string(drive))
	site = append(site, filepath.Join(folder, "drive_test.go"))
	gone(t, process.TCP, "vet", site...)
	if told := gone(t, process.TCP, "test", site...); !strings.HasPrefix(told, "ok") {
		t.Error(told)
	}
	if programs < 1 || len(site) < 7 {
		t.Error("examples are missing:", programs, site)
	}
}
