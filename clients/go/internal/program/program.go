// Package program runs the real session-sidecar for tests.
package program

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sidecar "session-sidecar"
)

// Patience is for what is not about deadlines: only a failing test waits as long.
const Patience = 30 * time.Second

// NeverIssued is an id that no sidecar knows.
const NeverIssued sidecar.ID = "an-id-that-was-never-issued"

// Process is a `session-sidecar serve --dev` with the short demo policy: 20 s of inactivity, warned of 10 s and 5 s before.
type Process struct {
	TCP, UDS string
	Another  string // The address of a --listen tcp://… among the arguments.
	admin    string
	cmd      *exec.Cmd
	exited   chan struct{}
}

// Start starts one, ready when it returns, with all verb groups; the test's end kills it.
func Start(t testing.TB, arguments ...string) *Process {
	t.Helper()
	return StartAt(t, "127.0.0.1:0", arguments...)
}

var (
	endpoint = regexp.MustCompile(`listening endpoint=tcp://(\S+)`)
	admin    = regexp.MustCompile(`listening for admin endpoint=(\S+)`)
)

// StartAt starts one that listens there.
func StartAt(t testing.TB, address string, arguments ...string) *Process {
	t.Helper()
	return StartReal(t, address, append([]string{"--dev"}, arguments...)...)
}

// StartReal starts one in real time, with the policy that a new user meets.
func StartReal(t testing.TB, address string, arguments ...string) *Process {
	t.Helper()
	binary := os.Getenv("SIDECAR_UNDER_TEST")
	if binary == "" {
		t.Fatal("SIDECAR_UNDER_TEST names no session-sidecar: build it, and say where it is")
	}
	socket := filepath.Join(t.TempDir(), "s.sock")
	verbs := "?verbs=use,issue,end,watch-own,watch-all,admin"
	given := append([]string{
		"serve", "--log-format", "human", "--admin-listen", "127.0.0.1:0", "--listen", "tcp://" + address + verbs,
		"--listen", "unix://" + socket + verbs,
	}, arguments...)
	p := &Process{UDS: "unix:" + socket, cmd: exec.Command(binary, given...), exited: make(chan struct{})}
	for _, each := range os.Environ() {
		if !strings.HasPrefix(each, "SESSION_SIDECAR_") && !strings.HasPrefix(each, "RUST_LOG") {
			p.cmd.Env = append(p.cmd.Env, each)
		}
	}
	output, write := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = write, write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	ready := make(chan bool, 1)
	go func() { _ = p.cmd.Wait(); _ = write.Close(); close(p.exited) }()
	go func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			said.Write(append(lines.Bytes(), '\n'))
			if strings.HasSuffix(lines.Text(), " INFO serving") {
				ready <- true
				_, _ = io.Copy(io.Discard, output)
			}
		}
		ready <- false
	}()
	if !<-ready {
		t.Fatalf("the sidecar did not start:\n%s", &said)
	}
	listening := endpoint.FindAllStringSubmatch(said.String(), -1)
	p.TCP, p.Another, p.admin = listening[0][1], listening[len(listening)-1][1], admin.FindStringSubmatch(said.String())[1]
	t.Cleanup(p.Kill)
	return p
}

// Kill kills it, as kill -9 does, and waits for that.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// StandStill stops all its threads, until the answer is called.
func (p *Process) StandStill(t testing.TB) (goOn func()) {
	t.Helper()
	pid := p.cmd.Process.Pid
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "it stands still", func() bool {
		stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, path := range stats {
			if stat, err := os.ReadFile(path); err == nil && !bytes.Contains(stat, []byte(") T ")) {
				return false
			}
		}
		return len(stats) > 0
	})
	var once sync.Once
	goOn = func() { once.Do(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) }
	t.Cleanup(goOn)
	return goOn
}

// Metric is the sum of a metric over its labels.
func (p *Process) Metric(t testing.TB, name string) float64 {
	t.Helper()
	answer, err := http.Get(p.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	sum := 0.0
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if own, _, _ := strings.Cut(series, "{"); own == "session_sidecar_"+name {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += number
		}
	}
	return sum
}

// Client is a client of it, patient unless the options say otherwise.
func (p *Process) Client(t testing.TB, options ...sidecar.Option) *sidecar.Client {
	t.Helper()
	return Client(t, p.TCP, append([]sidecar.Option{sidecar.WithDeadline(Patience)}, options...)...)
}

// Client is a client that the test's end closes.
func Client(t testing.TB, target string, options ...sidecar.Option) *sidecar.Client {
	t.Helper()
	client, err := sidecar.New(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// Eventually polls until something holds.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain: %s", Patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Nobody is an address on which nobody listens.
func Nobody(t testing.TB) string {
	t.Helper()
	listener := listen(t)
	defer listener.Close()
	return listener.Addr().String()
}

// BlackHole is an address that accepts connections and says nothing.
func BlackHole(t testing.TB) string {
	t.Helper()
	listener := listen(t)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().String()
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// Must is the value of a call that may not fail.
func Must[T any](t testing.TB) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}
