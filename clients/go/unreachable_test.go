package sidecar_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	sidecar "session-sidecar"
	"session-sidecar/internal/program"
)

// When nobody knows: deadlines, the fail policy, and coming back.

func TestTheFailPolicyDecidesQuestionsAndCommandsFail(t *testing.T) {
	for _, fail := range []sidecar.Fail{sidecar.FailClosed, sidecar.FailOpen} {
		t.Run(fail.String(), func(t *testing.T) {
			client := program.Client(t, program.Nobody(t), sidecar.WithFail(fail))
			touched, err := client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
			checked, err2 := client.Check(ctx, program.NeverIssued)
			answers := []sidecar.Answer{touched, checked}
			touches, err3 := client.TouchMany(ctx, []sidecar.Touch{{}, {}})
			checks, err4 := client.CheckMany(ctx, []sidecar.Name{program.NeverIssued, sidecar.Ref("x")})
			for _, each := range append(touches, checks...) {
				answers = append(answers, each.Answer)
			}
			if err := errors.Join(err, err2, err3, err4); err != nil || len(answers) != 6 {
				t.Fatal(answers, err)
			}
			for _, answer := range answers {
				if is[*sidecar.Unreachable](t, answer, nil).Allowed() != (fail == sidecar.FailOpen) {
					t.Error(answer)
				}
			}
			for _, command := range []func() error{
				func() error { _, err := client.Create(ctx, sidecar.CreateOptions{}); return err },
				func() error { _, err := client.Extend(ctx, program.NeverIssued, sidecar.ExtendOptions{}); return err },
				func() error { _, err := client.Rotate(ctx, program.NeverIssued, sidecar.RotateOptions{}); return err },
				func() error { _, err := client.End(ctx, program.NeverIssued, sidecar.EndOptions{}); return err },
				func() error {
					_, err := client.Hold(ctx, program.NeverIssued, "work", sidecar.HoldOptions{TTL: time.Second})
					return err
				},
				func() error { _, err := client.Release(ctx, program.NeverIssued, "work"); return err },
			} {
				fails[*sidecar.UnreachableError](t, command())
			}
		})
	}
}

func TestAnEndedOrUnknownSessionIsNeverAllowed(t *testing.T) {
	client := program.Start(t).Client(t, sidecar.WithFail(sidecar.FailOpen))
	id := create(t, client, sidecar.CreateOptions{}).ID
	if _, err := client.End(ctx, id, sidecar.EndOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, each := range []sidecar.ID{id, program.NeverIssued} {
		touched, err := client.Touch(ctx, each, sidecar.TouchOptions{})
		checked, err2 := client.Check(ctx, each)
		if err != nil || err2 != nil || touched.Allowed() || checked.Allowed() {
			t.Error(touched, err, checked, err2)
		}
	}
}

func TestABlackHoleCostsTheDeadlineAndNoMore(t *testing.T) {
	client := program.Client(t, program.BlackHole(t))
	began := time.Now()
	answer, err := client.Touch(ctx, program.NeverIssued, sidecar.TouchOptions{})
	took := time.Since(began)
	if away := is[*sidecar.Unreachable](t, answer, err); away.Code != "DEADLINE_EXCEEDED" || away.Allowed() {
		t.Errorf("%+v", away)
	}
	if took < 200*time.Millisecond || took > 5*time.Second {
		t.Error(took)
	}
}

func TestASidecarThatStandsStillCostsTheDeadline(t *testing.T) {
	process := program.Start(t)
	client := process.Client(t)
	id := create(t, client, sidecar.CreateOptions{}).ID
	goOn := process.StandStill(t)
	answer, err := client.With(sidecar.WithDeadline(sidecar.DefaultDeadline)).Touch(ctx, id, sidecar.TouchOptions{})
	if away := is[*sidecar.Unreachable](t, answer, err); away.Code != "DEADLINE_EXCEEDED" {
		t.Errorf("%+v", away)
	}
	goOn()
	answer, err = client.Touch(ctx, id, sidecar.TouchOptions{})
	is[*sidecar.Live](t, answer, err)
}

// logged is what a client has logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(text)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *logged) logger() sidecar.Option {
	return sidecar.WithLogger(slog.New(slog.NewTextHandler(l, nil)))
}

func TestASidecarThatComesBackIsFoundAndTheOutageLoggedOnce(t *testing.T) {
	first, log := program.Start(t), &logged{}
	client := program.Client(t, first.TCP, log.logger())
	patient := client.With(sidecar.WithDeadline(program.Patience))
	id := create(t, patient, sidecar.CreateOptions{}).ID
	first.Kill()
	for range 5 {
		answer, err := client.Touch(ctx, id, sidecar.TouchOptions{})
		is[*sidecar.Unreachable](t, answer, err)
	}
	program.StartAt(t, first.TCP)
	program.Eventually(t, "it is found again", func() bool {
		answer, err := patient.Touch(ctx, id, sidecar.TouchOptions{})
		_, unknown := answer.(*sidecar.Unknown) // Memory is lost with the process.
		return err == nil && unknown
	})
	told := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(told) != 2 || !strings.Contains(told[0], "does not answer") || !strings.Contains(told[1], "answers again") {
		t.Error(told)
	}
	if strings.Contains(log.String(), string(id)) {
		t.Error("an id was logged")
	}
}

func TestACallerInAHurryIsNoOutage(t *testing.T) {
	log := &logged{}
	client := program.Client(t, program.BlackHole(t), sidecar.WithDeadline(program.Patience), log.logger())
	hurried, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	answer, err := client.Touch(hurried, program.NeverIssued, sidecar.TouchOptions{})
	if away := is[*sidecar.Unreachable](t, answer, err); away.Code != "DEADLINE_EXCEEDED" || log.String() != "" {
		t.Error(away, log)
	}
}

func TestARestartBetweenTwoCallsIsNotNoticed(t *testing.T) {
	first := program.Start(t)
	client := first.Client(t)
	create(t, client, sidecar.CreateOptions{})
	first.Kill()
	program.StartAt(t, first.TCP)
	answer, err := client.Check(ctx, create(t, client, sidecar.CreateOptions{}).ID)
	is[*sidecar.Live](t, answer, err)
}

// cutsOff goes between a client and a sidecar. After `cut`, the next call is passed on, and its connection is closed before the answer
// comes.
type cutsOff struct {
	target      string
	to          string
	cut         atomic.Bool
	connections atomic.Int32

	mu   sync.Mutex
	open []net.Conn
}

// drop closes all that goes through it.
func (p *cutsOff) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, each := range p.open {
		_ = each.Close()
	}
	p.open = nil
}

func between(t *testing.T, process *program.Process) *cutsOff {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	proxy := &cutsOff{target: listener.Addr().String(), to: process.TCP}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			proxy.connections.Add(1)
			server, err := net.Dial("tcp", proxy.to)
			if err != nil {
				_ = client.Close()
				continue
			}
			proxy.mu.Lock()
			proxy.open = append(proxy.open, client, server)
			proxy.mu.Unlock()
			go proxy.pump(client, server, true)
			go proxy.pump(server, client, false)
		}
	}()
	return proxy
}

func (p *cutsOff) pump(source, sink net.Conn, asks bool) {
	defer func() { _, _ = source.Close(), sink.Close() }()
	data := make([]byte, 1<<16)
	for {
		size, err := source.Read(data)
		if err != nil {
			return
		}
		if asks && beginsACall(data[:size]) && p.cut.CompareAndSwap(true, false) {
			_ = source.Close()
			_, _ = sink.Write(data[:size])
			// The sidecar carries it out; its answer finds nobody.
			_, _ = sink.Read(data)
			return
		}
		if _, err := sink.Write(data[:size]); err != nil {
			return
		}
	}
}

// beginsACall says whether a HEADERS frame of HTTP/2 is among these; others, such as WINDOW_UPDATE, come at any time.
func beginsACall(data []byte) bool {
	data = bytes.TrimPrefix(data, []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	for len(data) >= 9 {
		if data[3] == 1 {
			return true
		}
		size := 9 + int(data[0])<<16 + int(data[1])<<8 + int(data[2])
		data = data[min(size, len(data)):]
	}
	return false
}

func TestACallThatLostItsConnectionIsMadeAgain(t *testing.T) {
	proxy := between(t, program.Start(t))
	client := program.Client(t, proxy.target, sidecar.WithDeadline(program.Patience))
	id := create(t, client, sidecar.CreateOptions{}).ID
	for number, call := range []func() error{
		func() error {
			answer, err := client.Touch(ctx, id, sidecar.TouchOptions{})
			is[*sidecar.Live](t, answer, err)
			return err
		},
		func() error { answer, err := client.Check(ctx, id); is[*sidecar.Live](t, answer, err); return err },
		func() error { _, err := client.Create(ctx, sidecar.CreateOptions{}); return err },
		func() error { _, err := client.Extend(ctx, id, sidecar.ExtendOptions{}); return err },
		func() error {
			_, err := client.Hold(ctx, id, "work", sidecar.HoldOptions{TTL: 5 * time.Second})
			return err
		},
		func() error {
			rotated, err := client.Rotate(ctx, id, sidecar.RotateOptions{})
			id = rotated.ID
			return err
		},
		func() error {
			end, err := client.End(ctx, id, sidecar.EndOptions{})
			if err == nil && !end.EndedNow {
				t.Error("an End that was repeated says what the first one did")
			}
			return err
		},
	} {
		proxy.cut.Store(true)
		if err := call(); err != nil {
			t.Error(number, err)
		}
		if made := proxy.connections.Load(); made != int32(number+2) {
			t.Error(number, "connections:", made)
		}
	}
}

func TestWhatCannotBeRepeatedWithoutATraceIsNot(t *testing.T) {
	proxy := between(t, program.Start(t))
	client := program.Client(t, proxy.target, sidecar.WithDeadline(program.Patience))
	id := create(t, client, sidecar.CreateOptions{}).ID
	if _, err := client.Hold(ctx, id, "work", sidecar.HoldOptions{TTL: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	proxy.cut.Store(true)
	_, err := client.Release(ctx, id, "work")
	fails[*sidecar.UnreachableError](t, err)
}
