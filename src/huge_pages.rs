//! Huge pages, when there is enough to fill them.
//!
//! With transparent huge pages a million sessions are touched a third faster: fewer misses on the way to each. But an idle
//! sidecar that needs 2 MB would occupy 15, one huge page for each thread's few kilobytes. So they wait for sessions.

use std::sync::atomic::{AtomicBool, Ordering};

/// From so many live sessions on they pay.
pub const WORTHWHILE: usize = 20_000;

/// Whether they were put off by us: what the platform decided stays as it is.
static PUT_OFF: AtomicBool = AtomicBool::new(false);

/// Puts huge pages off. Called at the start of the program.
pub fn put_off() {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

        let undecided = matches!(transparent_huge_pages_are_disabled(), Ok(false));
        PUT_OFF.store(
            undecided && disable_transparent_huge_pages(true).is_ok(),
            Ordering::Relaxed,
        );
    }
}

/// Lets memory that is touched from now on be in huge pages, if nobody but us said otherwise.
pub(crate) fn welcome() {
    #[cfg(target_os = "linux")]
    if PUT_OFF.swap(false, Ordering::Relaxed) {
        // If it fails, it is only slower.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
    }
}
