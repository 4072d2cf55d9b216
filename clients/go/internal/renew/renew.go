// Package renew says when something is to be done again: by timers, or by the clock of the fake.
package renew

import (
	"sync"
	"time"
)

// Scheduler calls `ring` after `first`, and again after as long as it answers, until it answers false or `stop` is called. After
// `stop` nothing rings any more.
type Scheduler interface {
	Start(first time.Duration, ring func() (time.Duration, bool)) (stop func())
}

// Timers is the Scheduler of real time.
type Timers struct{}

// Start begins a goroutine.
func (Timers) Start(first time.Duration, ring func() (time.Duration, bool)) func() {
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		timer := time.NewTimer(first)
		defer timer.Stop()
		for {
			select {
			case <-stopped:
				return
			case <-timer.C:
			}
			next, again := ring()
			if !again {
				return
			}
			timer.Reset(next)
		}
	}()
	var once sync.Once
	return func() {
		once.Do(func() { close(stopped) })
		<-done
	}
}
