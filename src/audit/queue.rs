//! The queue before the writer's thread.

use std::{collections::VecDeque, io, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::{Meter, Note, Output, What, entry::Lines};

/// How long somebody waits while the writer makes no progress. The driver may be the one who waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long to wait before writing again after an error.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// How many notes the writer takes at once: so often is there room again.
const BATCH: usize = 1024;

pub(super) struct Queue {
    size: usize,
    state: Mutex<State>,
    /// The writer waits for work.
    work: Condvar,
    /// Others wait for room, or for the end.
    room: Condvar,
    meter: Meter,
}

#[derive(Default)]
struct State {
    notes: VecDeque<Note>,
    /// Counts the writer's batches.
    progress: u64,
    /// The progress at which somebody waited in vain: nobody waits again before there is more.
    stuck_at: Option<u64>,
    /// Lost since the last line was written.
    lost: u64,
    reopen: bool,
    closing: bool,
    closed: bool,
}

impl Queue {
    pub(super) fn start(size: usize, output: Output, lines: Lines, meter: Meter) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self {
            size: size.max(1),
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            meter,
        });
        let writer = Writer {
            queue: Arc::clone(&queue),
            output,
            lines,
            failing: false,
        };
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let guard = AbortOnPanic;
            writer.run();
            std::mem::forget(guard);
        })?;
        Ok(queue)
    }

    pub(super) fn put(&self, note: Note) {
        let mut state = self.state.lock();
        while state.notes.len() >= self.size && !state.closing {
            let progress = state.progress;
            if state.stuck_at == Some(progress) {
                break;
            }
            let waited = self.room.wait_for(&mut state, PATIENCE);
            if waited.timed_out() && state.progress == progress {
                state.stuck_at = Some(progress);
            }
        }
        if state.closing {
            return;
        }
        if state.notes.len() >= self.size {
            self.meter.lost.inc();
            if state.lost == 0 {
                tracing::error!("the audit log is not written fast enough or not at all: lines are being lost");
            }
            state.lost += 1;
            return;
        }
        state.notes.push_back(note);
        if state.notes.len() == 1 {
            self.work.notify_one();
        }
    }

    pub(super) fn reopen(&self) {
        self.state.lock().reopen = true;
        self.work.notify_one();
    }

    pub(super) fn close(&self, within: Duration) {
        let mut state = self.state.lock();
        state.closing = true;
        self.work.notify_one();
        self.room.notify_all();
        self.room.wait_while_for(&mut state, |state| !state.closed, within);
        if !state.closed {
            let waiting = state.notes.len();
            tracing::error!(waiting, "the audit log could not be written to its end");
        }
    }
}

struct Writer {
    queue: Arc<Queue>,
    output: Output,
    lines: Lines,
    failing: bool,
}

impl Writer {
    fn run(mut self) {
        loop {
            let (batch, reopen, lost, closing) = self.take();
            if reopen {
                self.reopen();
            }
            let over = closing && batch.is_empty() && lost == 0;
            if !over {
                self.write(batch, lost);
            }
            let mut state = self.queue.state.lock();
            state.progress += 1;
            state.closed = over;
            self.queue.room.notify_all();
            if over {
                return;
            }
        }
    }

    /// Waits for work and takes some of it.
    fn take(&self) -> (Vec<Note>, bool, u64, bool) {
        let mut state = self.queue.state.lock();
        while state.notes.is_empty() && !state.reopen && !state.closing && state.lost == 0 {
            self.queue.work.wait(&mut state);
        }
        let most = state.notes.len().min(BATCH);
        let batch = state.notes.drain(..most).collect();
        self.queue.room.notify_all();
        // Those that were lost came after all that waits: they are told of in their place.
        let lost = if state.notes.is_empty() {
            std::mem::take(&mut state.lost)
        } else {
            0
        };
        (batch, std::mem::take(&mut state.reopen), lost, state.closing)
    }

    fn write(&mut self, batch: Vec<Note>, lost: u64) {
        let mut bytes = Vec::with_capacity(256 * (batch.len() + 1));
        let mut count = batch.len() as u64;
        for note in &batch {
            self.lines.write(note, &mut bytes);
        }
        if lost > 0 {
            count += 1;
            let at = self.lines.clock.now();
            let what = What::Lost(lost);
            self.lines.write(&Note { at, what }, &mut bytes);
            tracing::error!(lost, "the audit log is written again; so many lines were lost");
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let last_try = self.queue.state.lock().closing;
            let error = match self.output.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = &rest[written..];
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("the audit log can be written again");
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            self.failed(&error);
            if last_try {
                let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.queue.meter.lost.inc_by(lost);
                self.queue.meter.written.inc_by(count.saturating_sub(lost));
                tracing::error!(
                    lost,
                    "the process ends and the audit log cannot be written: lines are lost"
                );
                return;
            }
            if self.wait() {
                // The old file keeps the beginning of a line; the new one gets all of it.
                let done = bytes.len() - rest.len();
                let line = bytes[..done]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |end| end + 1);
                rest = &bytes[line..];
            }
        }
        self.queue.meter.written.inc_by(count);
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the audit log cannot be written; it is tried again every second");
        }
    }

    /// Waits a while after an error, or until there is another file or no time left. Answers whether there is another file.
    fn wait(&mut self) -> bool {
        let mut state = self.queue.state.lock();
        if !state.closing && !state.reopen {
            self.queue.work.wait_for(&mut state, TRY_AGAIN);
        }
        let reopen = std::mem::take(&mut state.reopen);
        drop(state);
        reopen && self.reopen()
    }

    fn reopen(&mut self) -> bool {
        match self.output.reopen() {
            Ok(is_new) => {
                tracing::info!("the audit log was opened anew");
                is_new
            }
            Err(error) => {
                tracing::error!(%error, "the audit log cannot be opened anew; the old file is written on");
                false
            }
        }
    }
}

/// An audit log that stops without a word is worse than a restart.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("the writer of the audit log panicked");
        std::process::abort();
    }
}
