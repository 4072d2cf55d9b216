//! The locks and atomics of a session and of all that finds, ends and wakes it: shuttle's when `tests/races` explores their
//! interleavings, real ones otherwise.
//!
//! A lock under which any of them is used must be one of them: shuttle's threads are one thread of the system, which would wait
//! for itself.

#[cfg(not(feature = "shuttle"))]
pub(crate) use arc_swap::ArcSwap;
#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::atomic::AtomicU64;

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{MutexGuard, atomic::AtomicU64};

/// Shuttle's mutex with the interface of the real one.
#[cfg(feature = "shuttle")]
#[derive(Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

#[cfg(feature = "shuttle")]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An `ArcSwap` at each use of which shuttle may change threads: shuttle has none of its own.
#[cfg(feature = "shuttle")]
pub(crate) struct ArcSwap<T> {
    inner: arc_swap::ArcSwap<T>,
    /// Says nothing: shuttle changes threads where it is read.
    turn: AtomicU64,
}

#[cfg(feature = "shuttle")]
impl<T> ArcSwap<T> {
    pub(crate) fn new(value: std::sync::Arc<T>) -> Self {
        Self {
            inner: arc_swap::ArcSwap::new(value),
            turn: AtomicU64::new(0),
        }
    }

    pub(crate) fn load(&self) -> arc_swap::Guard<std::sync::Arc<T>> {
        self.turn.load(std::sync::atomic::Ordering::SeqCst);
        self.inner.load()
    }

    pub(crate) fn store(&self, value: std::sync::Arc<T>) {
        self.turn.load(std::sync::atomic::Ordering::SeqCst);
        self.inner.store(value);
    }
}
