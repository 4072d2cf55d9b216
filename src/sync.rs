//! The locks, the atomics and the exchanged pointers of a session and of all that finds, ends and wakes it: shuttle's when
//! `tests/races` explores their interleavings, real ones otherwise.
//!
//! A lock under which any of them is used must be one of them: shuttle's threads are one thread of the system, which would wait
//! for itself.

#[cfg(not(feature = "shuttle"))]
pub(crate) use arc_swap::{ArcSwap, Guard};
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

/// A pointer that is exchanged as one step.
#[cfg(feature = "shuttle")]
pub(crate) struct ArcSwap<T>(Mutex<std::sync::Arc<T>>);

/// What it pointed to.
#[cfg(feature = "shuttle")]
pub struct Guard<T>(T);

#[cfg(feature = "shuttle")]
impl<T> ArcSwap<T> {
    pub(crate) fn new(value: std::sync::Arc<T>) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn load(&self) -> Guard<std::sync::Arc<T>> {
        Guard(std::sync::Arc::clone(&self.0.lock()))
    }

    pub(crate) fn store(&self, value: std::sync::Arc<T>) {
        *self.0.lock() = value;
    }
}

#[cfg(feature = "shuttle")]
impl<T> std::ops::Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
