//! Huge pages, when there is enough to fill them.
//!
//! With transparent huge pages a million sessions are touched a third faster: fewer misses on the way to each. But an idle
//! sidecar that needs 3 MB would occupy 15, one huge page for each thread's few kilobytes. So they wait for sessions.

use std::sync::atomic::{AtomicBool, Ordering};

/// From so many live sessions on they pay.
pub const WORTHWHILE: usize = 20_000;

/// Whether this process begins without them.
static PUT_OFF: AtomicBool = AtomicBool::new(false);

/// Puts huge pages off. Called at the start of the program, before it has threads.
///
/// The allocator has touched two of them before `main` begins, and nothing gives them back but a new start: the process
/// executes itself, once, because the kernel keeps the setting over that ([why](../docs/adr/0015-huge-pages-wait.md)).
pub fn put_off() {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt as _;

        use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

        let Ok(are_off) = transparent_huge_pages_are_disabled() else {
            return;
        };
        if !are_off {
            if disable_transparent_huge_pages(true).is_err() {
                return;
            }
            if let Ok(program) = std::env::current_exe() {
                let mut arguments = std::env::args_os();
                let mut again = std::process::Command::new(program);
                if let Some(name) = arguments.next() {
                    again.arg0(name);
                }
                // It returns only if it fails: then we are larger.
                let _ = again.args(arguments).exec();
            }
        }
        PUT_OFF.store(true, Ordering::Relaxed);
    }
}

/// Lets memory that is touched from now on be in huge pages.
pub(crate) fn welcome() {
    #[cfg(target_os = "linux")]
    if PUT_OFF.swap(false, Ordering::Relaxed) {
        // If it fails, it is only slower.
        let _ = rustix::thread::disable_transparent_huge_pages(false);
    }
}
